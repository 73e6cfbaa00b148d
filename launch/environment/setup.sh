#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make or complete the environment in .venv:  setup.sh [PYTHON [dev]]
#
# Every stage leaves a stamp that holds the checksum of what it was made from, so a second call
# starts working at once, a changed lock file repeats only its own stage, and an interrupted one
# is done again.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${1:-} stage=${2:-run}
venv=.venv
say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 2; }

sum_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
done_already() { [ "$(cat "$venv/.stamp-$1" 2>/dev/null)" = "$2" ]; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
if [ -z "$python" ]; then
    # The one that .venv was made with, else the first that fits.
    for candidate in "python$(cat $venv/.stamp-python 2>/dev/null)" python3.11 python3.10 python3; do
        case $(version_of "$candidate") in 3.10 | 3.11) python=$candidate && break ;; esac
    done
    [ -n "$python" ] ||
        fail "no Python 3.10 or 3.11 found; install it (Debian 12: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.11"
fi
version=$(version_of "$python") ||
    fail "no Python found as '$python'; name another one: make PYTHON=python3.11"
case $version in
    3.10 | 3.11) ;;
    *) fail "Python 3.10 or 3.11 is needed, '$python' is $version; name another one: make PYTHON=python3.11" ;;
esac
run_sum=$(sum_of requirements/cpu.txt launch/environment/numpy_aliases.py <(echo "$version"))
horovod_sum=$(sum_of requirements/horovod.txt requirements/cpu.txt <(echo "$version"))
dev_sum=$(sum_of requirements/dev.txt <(echo "$version"))
if done_already run "$run_sum" && done_already horovod "$horovod_sum" &&
    { [ "$stage" != dev ] || done_already dev "$dev_sum"; }; then
    exit 0
fi

[ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "Linux on x86-64 is needed (MXNet and DALI are wheels for it alone), this is $(uname -sm)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "'$python' has no venv module; install it: apt-get install python$version-venv"
command -v g++ >/dev/null || fail "no C++ compiler found (Horovod is built from source); install it: apt-get install g++"
command -v make >/dev/null || fail "make is missing (Horovod's build calls it); install it: apt-get install make"

if [ -x $venv/bin/python ] && [ "$(cat $venv/.stamp-python 2>/dev/null)" != "$version" ]; then
    say "$venv was made for another Python; making it anew for $version"
    rm -rf $venv
fi
if [ ! -x $venv/bin/python ]; then
    say "making $venv with Python $version"
    "$python" -m venv $venv
    echo "$version" >$venv/.stamp-python
fi
pip() { $venv/bin/python -m pip --disable-pip-version-check "$@"; }

if ! done_already run "$run_sum"; then
    say "installing requirements/cpu.txt (MXNet, DALI: about 600 MB the first time)"
    pip install --quiet --require-hashes -r requirements/cpu.txt
    site=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp launch/environment/numpy_aliases.py "$site/mxnet_numpy_aliases.py"
    echo 'import mxnet_numpy_aliases' >"$site/mxnet_numpy_aliases.pth"
    $venv/bin/python -c 'import mxnet' || fail "mxnet does not import; the message above says why"
    echo "$run_sum" >$venv/.stamp-run
fi

if ! done_already horovod "$horovod_sum"; then
    say "building Horovod for MXNet with Gloo (2 to 3 minutes)"
    log=$venv/horovod-build.log
    # pip unpacks and builds under TMPDIR; cmake and make come from PATH, the wheel's cmake first.
    if ! PATH="$PWD/$venv/bin:$PATH" HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
        HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 MAKEFLAGS="-j$(nproc)" \
        pip install --no-build-isolation --no-deps --require-hashes -v -r requirements/horovod.txt \
        >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "Horovod did not build; the whole log is in $log"
    fi
    $venv/bin/python -c 'import horovod.mxnet' || fail "horovod.mxnet does not import; the message above says why"
    echo "$horovod_sum" >$venv/.stamp-horovod
fi

if [ "$stage" = dev ] && ! done_already dev "$dev_sum"; then
    say "installing requirements/dev.txt (tests and lint)"
    pip install --quiet --require-hashes -r requirements/dev.txt
    echo "$dev_sum" >$venv/.stamp-dev
fi
say "ready: $($venv/bin/python -c 'import sys; print(sys.version.split()[0])') in $venv"
