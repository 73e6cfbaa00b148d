#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Lint the Dockerfiles and scripts, and resolve the images' pip requirements, without a build.
#
# pip resolves each lock for the Python and C library of its image, from the package index that this
# machine uses.  It downloads every wheel and compares the hash (3 GB, which pip's cache keeps).
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
say() { printf 'docker-check: %s\n' "$*"; }
fail() { printf 'docker-check: %s\n' "$*" >&2; exit 2; }
pip() { $python -m pip --disable-pip-version-check "$@"; }

pip install --quiet --require-hashes -r requirements/docker.txt
.venv/bin/hadolint --config docker/hadolint.yaml Dockerfile docker/Dockerfile.*
.venv/bin/shellcheck docker/*.sh
say "hadolint and shellcheck report no errors"

own=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
resolve() { # resolve VERSION GLIBC LOCK...: resolves locks for a Python and a C library
    local version=$1 glibc=$2 minor lock options=(--only-binary :all:)
    shift 2
    for minor in $(seq 5 "$glibc"); do options+=(--platform "manylinux_2_${minor}_x86_64"); done
    for name in manylinux1 manylinux2010 manylinux2014 linux; do options+=(--platform "${name}_x86_64"); done
    # pip evaluates markers of dependencies for its own Python; the lock lists all dependencies.
    if [ "$version" != "$own" ] || [ "$*" = ngc ]; then options+=(--no-deps); fi
    for lock in "$@"; do
        [ -e "requirements/$lock.txt" ] || fail "a lock is missing, got no requirements/$lock.txt; make it as CONTRIBUTING.md describes"
        $python docker/lock_for.py "$version" "requirements/$lock.txt" >"$work/$lock.txt"
        options+=(-r "$work/$lock.txt")
    done
    pip install --dry-run --ignore-installed --require-hashes --target "$work/none" \
        --implementation cp --python-version "$version" "${options[@]}" >"$work/log" 2>&1 ||
        { tail -n 5 "$work/log" >&2; fail "pip cannot resolve the locks for Python $version, got $*; the lines above give the reason"; }
    say "Python $version: $(sed -n 's/^Would install //p' "$work/log" | wc -w) packages of $*"
}
# Debian 12: the CPU image and its test target.
resolve 3.11 36 cpu
resolve 3.11 36 cpu dev
# Ubuntu 22.04: CUDA 11.8, and the packages that the image adds to NGC's.
resolve 3.10 35 gpu
resolve 3.10 35 ngc
# Horovod is a source package, the same for every Python.
pip download --quiet --no-deps --no-build-isolation --require-hashes --dest "$work" -r requirements/horovod.txt
say "the hash of Horovod's source package matches the lock"
