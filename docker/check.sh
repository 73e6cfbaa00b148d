#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Read the Dockerfiles and scripts, and resolve what the images install with pip; builds nothing.
#
# Every lock is resolved with its hashes for the Python and the C library of its image, whatever
# this machine has, from the package index that pip uses here.  Every wheel is fetched and its hash
# compared (3 GB, which pip's cache keeps).
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
say() { printf 'docker-check: %s\n' "$*"; }
fail() { printf 'docker-check: %s\n' "$*" >&2; exit 2; }
pip() { $python -m pip --disable-pip-version-check "$@"; }

pip install --quiet --require-hashes -r requirements/docker.txt
.venv/bin/hadolint --config docker/hadolint.yaml Dockerfile docker/Dockerfile.*
.venv/bin/shellcheck docker/*.sh
say "hadolint and shellcheck find nothing"

own=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
resolve() { # resolve VERSION GLIBC LOCK...: what an image of that Python and C library installs
    local version=$1 glibc=$2 minor lock options=(--only-binary :all:)
    shift 2
    for minor in $(seq 5 "$glibc"); do options+=(--platform "manylinux_2_${minor}_x86_64"); done
    for name in manylinux1 manylinux2010 manylinux2014 linux; do options+=(--platform "${name}_x86_64"); done
    # pip judges the markers of dependencies by its own Python; the lock names them all anyway.
    if [ "$version" != "$own" ] || [ "$*" = ngc ]; then options+=(--no-deps); fi
    for lock in "$@"; do
        [ -e "requirements/$lock.txt" ] || fail "requirements/$lock.txt is missing; CONTRIBUTING.md says how locks are made"
        $python docker/lock_for.py "$version" "requirements/$lock.txt" >"$work/$lock.txt"
        options+=(-r "$work/$lock.txt")
    done
    pip install --dry-run --ignore-installed --require-hashes --target "$work/none" \
        --implementation cp --python-version "$version" "${options[@]}" >"$work/log" 2>&1 ||
        { tail -n 5 "$work/log" >&2; fail "not to be installed with Python $version, got $*; the lines above say why"; }
    say "Python $version: $(sed -n 's/^Would install //p' "$work/log" | wc -w) packages of $*"
}
# Debian 12: the CPU image and its test target.
resolve 3.11 36 cpu
resolve 3.11 36 cpu dev
# Ubuntu 22.04: CUDA 11.8, and what is added to NGC's MXNet.
resolve 3.10 35 gpu
resolve 3.10 35 ngc
# Source, whatever the Python; its metadata comes from its own setup.py.
pip download --quiet --no-deps --no-build-isolation --require-hashes --dest "$work" -r requirements/horovod.txt
say "Horovod's source has the hash of its lock"
