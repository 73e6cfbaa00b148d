#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make or complete an environment:  setup.sh FOLDER [PYTHON [run | dev | gpu]]
#
# A folder that ends in -gpu gets MXNet for CUDA 11 (requirements/gpu.txt), any other the one for
# the CPU (requirements/cpu.txt).  `dev` adds what tests and lint need; `gpu` looks again whether
# Horovod can be built with NCCL by now.
#
# Every stage leaves a stamp that holds the checksum of what it was made from, so a second call
# starts working at once, a changed lock file repeats only its own stage, and an interrupted one
# is done again.  A stage asks only for what it needs itself: an image keeps no compiler, and its user
# cannot write to the environment.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${1:-.venv} python=${2:-} stage=${3:-run}
hooks=(launch/environment/numpy_aliases.py)
case $venv in
    *-gpu) lock=gpu hooks+=(launch/environment/cuda_libraries.py) load="MXNet, CUDA, DALI: about 3 GB" ;;
    *) lock=cpu load="MXNet, DALI: about 600 MB" ;;
esac
say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 2; }

# Laid by the Dockerfile beside the MXNet, DALI and Horovod of its base: nothing is ours to make.
if [ -e "$venv/.stamp-image" ]; then
    [ "$stage" = run ] ||
        fail "$venv came with the image, which holds what training needs alone, got '$stage' to add; run this where 'make setup' has made the environment"
    exit 0
fi

sum_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
done_already() { [ "$(cat "$venv/.stamp-$1" 2>/dev/null)" = "$2" ]; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
if [ -z "$python" ]; then
    # The one that the environment was made with, else the first that fits.
    for candidate in "python$(cat "$venv/.stamp-python" 2>/dev/null)" python3.11 python3.10 python3.12 python3; do
        case $(version_of "$candidate") in 3.10 | 3.11 | 3.12) python=$candidate && break ;; esac
    done
    [ -n "$python" ] ||
        fail "no Python 3.10, 3.11 or 3.12 found; install it (Debian 12: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.11"
fi
version=$(version_of "$python") ||
    fail "no Python found as '$python'; name another one: make PYTHON=python3.11"
case $version in
    3.10 | 3.11 | 3.12) ;;
    *) fail "Python 3.10, 3.11 or 3.12 is needed, '$python' is $version; name another one: make PYTHON=python3.11" ;;
esac
. launch/environment/horovod.sh

run_sum=$(sum_of requirements/$lock.txt "${hooks[@]}" <(echo "$version"))
horovod_sum=$(sum_of requirements/horovod.txt requirements/$lock.txt <(echo "$version"))
dev_sum=$(sum_of requirements/dev.txt <(echo "$version"))
# The images make the environment before they have this file.  The path: a checkout may be moved, or
# its environment copied to another one.
checkout_sum=
[ ! -f pyproject.toml ] || checkout_sum=$(sum_of pyproject.toml <(echo "$version $PWD"))
# The images make the environment before they have the operators' sources.  Byte code is none of
# them: Python writes it on first use.
sources_of_ops() {
    [ ! -d ops ] ||
        find ops -name __pycache__ -prune -o \( -name '*.py' -o -path '*native*' \) -type f ! -name '*.py[co]' -print0
}
ops_sum=$(sources_of_ops | LC_ALL=C sort -z | xargs -0r cat | sum_of - <(echo "$version"))
if [ "$stage" = gpu ]; then
    find_cuda_11
    [ -z "$cuda_home" ] || [ -e "$venv/.stamp-nccl" ] || rm -f "$venv/.stamp-horovod"
fi
pending=''
done_already run "$run_sum" || pending+=' run'
done_already horovod "$horovod_sum" || pending+=' horovod'
[ -z "$checkout_sum" ] || done_already checkout "$checkout_sum" || pending+=' checkout'
done_already ops "$ops_sum" || pending+=' ops'
[ "$stage" != dev ] || done_already dev "$dev_sum" || pending+=' dev'
is_pending() { [[ "$pending " == *" $1 "* ]]; }
[ -n "$pending" ] || exit 0
# The operators are optional: without them everything runs in its plain form, which is slower and
# says so.
if is_pending ops; then
    optional=
    command -v "${CXX:-g++}" >/dev/null || optional="no C++ compiler found; install it: apt-get install g++"
    [ ! -e "$venv" ] || [ -w "$venv" ] || optional="user $(id -u) cannot write to $venv"
    if [ -n "$optional" ] && [ "$pending" = ' ops' ]; then
        say "the fused operators stay as they are: $optional"
        exit 0
    fi
fi

[ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "Linux on x86-64 is needed (MXNet and DALI are wheels for it alone), this is $(uname -sm)"
[ ! -e "$venv" ] || [ -w "$venv" ] ||
    fail "$venv lacks$pending and user $(id -u) cannot write to it; make one of your own: VENV=FOLDER (tests in a container: docker/README.md)"
if [ ! -x "$venv/bin/python" ] || [ "$(cat "$venv/.stamp-python" 2>/dev/null)" != "$version" ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "'$python' has no venv module; install it: apt-get install python$version-venv"
fi
if is_pending horovod; then
    command -v g++ >/dev/null || fail "no C++ compiler found (Horovod is built from source); install it: apt-get install g++"
    command -v make >/dev/null || fail "make is missing (Horovod's build calls it); install it: apt-get install make"
fi

if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp-python" 2>/dev/null)" != "$version" ]; then
    say "$venv was made for another Python; making it anew for $version"
    rm -rf "$venv"
fi
if [ ! -x "$venv/bin/python" ]; then
    say "making $venv with Python $version"
    "$python" -m venv "$venv"
    echo "$version" >"$venv/.stamp-python"
fi
home=$(cd "$venv" && pwd)
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

if [ $lock = gpu ]; then
    # Where there is no NVIDIA driver, a stand-in lets MXNet be imported to build and to test.
    if command -v g++ >/dev/null; then
        mkdir -p "$venv/stand-in"
        g++ -x c -shared -fPIC -O1 -o "$venv/stand-in/libcuda.so.1" launch/environment/stand_in_driver.c
    fi
    "$python" -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null ||
        export LD_LIBRARY_PATH="$home/stand-in${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

if is_pending run; then
    say "installing requirements/$lock.txt ($load the first time)"
    pip install --quiet --require-hashes -r requirements/$lock.txt
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for hook in "${hooks[@]}"; do
        name=mxnet_$(basename "$hook" .py)
        cp "$hook" "$site/$name.py"
        echo "import $name" >"$site/$name.pth"
    done
    "$venv/bin/python" -c 'import mxnet' || fail "mxnet does not import; the message above says why"
    echo "$run_sum" >"$venv/.stamp-run"
fi

if is_pending checkout; then
    # In place: the folders of the checkout become importable from everywhere.  setuptools is that of
    # the lock, and nothing is looked up.
    pip install --quiet --no-index --no-deps --no-build-isolation --editable .
    echo "$checkout_sum" >"$venv/.stamp-checkout"
fi

if is_pending horovod; then
    [ $lock = cpu ] || [ "$stage" = gpu ] || find_cuda_11
    build_horovod
    echo "$horovod_sum" >"$venv/.stamp-horovod"
fi

if is_pending ops && [ -z "$optional" ] && [ -f ops/build.py ]; then
    say "compiling the fused operators (half a minute)"
    "$venv/bin/python" -m ops >/dev/null && echo "$ops_sum" >"$venv/.stamp-ops"
fi

if is_pending dev; then
    say "installing requirements/dev.txt (tests and lint)"
    pip install --quiet --require-hashes -r requirements/dev.txt
    echo "$dev_sum" >"$venv/.stamp-dev"
fi
say "ready: $("$venv/bin/python" -c 'import sys; print(sys.version.split()[0])') in $venv"
