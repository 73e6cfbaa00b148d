#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Create or update a virtual environment:  setup.sh FOLDER [PYTHON [run | dev | gpu]]
#
# A folder whose name ends in -gpu gets MXNet for CUDA 11 (requirements/gpu.txt), any other folder
# MXNet for the CPU (requirements/cpu.txt).  `dev` also installs the tools for tests and lint.  `gpu`
# rebuilds Horovod if a CUDA 11 compiler has been installed since the last build of Horovod.
#
# Each stage writes a stamp file with the checksum of its inputs.  A second call therefore skips all
# finished stages, a changed lock file repeats its own stage only, and an interrupted stage runs
# again.  Each stage checks only its own requirements: a container image has no compiler, and its
# user cannot write to the environment.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${1:-.venv} python=${2:-} stage=${3:-run}
hooks=(launch/environment/numpy_aliases.py)
case $venv in
    *-gpu) lock=gpu hooks+=(launch/environment/cuda_libraries.py) load="MXNet, CUDA, DALI: about 3 GB" ;;
    *) lock=cpu load="MXNet, DALI, ONNX Runtime: about 640 MB" ;;
esac
say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 2; }

# The Dockerfile writes .stamp-image where the base image provides MXNet, DALI and Horovod.
if [ -e "$venv/.stamp-image" ]; then
    [ "$stage" = run ] ||
        fail "$venv belongs to the image, which supports training only, got stage '$stage'; run this where 'make setup' has created the environment"
    exit 0
fi

sum_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
done_already() { [ "$(cat "$venv/.stamp-$1" 2>/dev/null)" = "$2" ]; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
if [ -z "$python" ]; then
    # The Python of the existing environment, otherwise the first supported one.
    for candidate in "python$(cat "$venv/.stamp-python" 2>/dev/null)" python3.11 python3.10 python3.12 python3; do
        case $(version_of "$candidate") in 3.10 | 3.11 | 3.12) python=$candidate && break ;; esac
    done
    [ -n "$python" ] ||
        fail "Python 3.10, 3.11 or 3.12 is required, got none on the PATH; install one (Debian 12: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.11"
fi
version=$(version_of "$python") ||
    fail "no Python interpreter of this name, got '$python'; name another one: make PYTHON=python3.11"
case $version in
    3.10 | 3.11 | 3.12) ;;
    *) fail "Python 3.10, 3.11 or 3.12 is required, got $version from '$python'; name another one: make PYTHON=python3.11" ;;
esac
. launch/environment/horovod.sh

run_sum=$(sum_of requirements/$lock.txt "${hooks[@]}" <(echo "$version"))
horovod_sum=$(sum_of requirements/horovod.txt requirements/$lock.txt <(echo "$version"))
dev_sum=$(sum_of requirements/dev.txt requirements/align.txt <(echo "$version"))
# The Dockerfiles create the environment before they copy pyproject.toml.  The checksum includes the
# path of the checkout, because the installation refers to it.
checkout_sum=
[ ! -f pyproject.toml ] || checkout_sum=$(sum_of pyproject.toml <(echo "$version $PWD"))
# The Dockerfiles create the environment before they copy ops/.  Byte code does not count as a source,
# because Python writes it on first use.
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
# The compiled operators are optional: without them training uses MXNet's own operators, which are
# slower, and the log contains a notice.
if is_pending ops; then
    skip_reason=
    command -v "${CXX:-g++}" >/dev/null || skip_reason="no C++ compiler was found; install one: apt-get install g++"
    [ ! -e "$venv" ] || [ -w "$venv" ] || skip_reason="user $(id -u) cannot write to $venv"
    if [ -n "$skip_reason" ] && [ "$pending" = ' ops' ]; then
        say "the fused operators are not compiled: $skip_reason"
        exit 0
    fi
fi

[ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "Linux on x86-64 is required (MXNet and DALI have no other wheels), got $(uname -sm); use such a machine or container"
[ ! -e "$venv" ] || [ -w "$venv" ] ||
    fail "$venv: pending stages$pending, and user $(id -u) cannot write to it; create another environment: VENV=FOLDER (tests in a container: docker/README.md)"
if [ ! -x "$venv/bin/python" ] || [ "$(cat "$venv/.stamp-python" 2>/dev/null)" != "$version" ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "'$python' has no venv module; install it: apt-get install python$version-venv"
fi
if is_pending horovod; then
    command -v g++ >/dev/null || fail "a C++ compiler is required to build Horovod, got none; install one: apt-get install g++"
    command -v make >/dev/null || fail "make is required to build Horovod, got none; install it: apt-get install make"
fi

if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp-python" 2>/dev/null)" != "$version" ]; then
    say "$venv belongs to another Python; recreating it for $version"
    rm -rf "$venv"
fi
if [ ! -x "$venv/bin/python" ]; then
    say "creating $venv with Python $version"
    "$python" -m venv "$venv"
    echo "$version" >"$venv/.stamp-python"
fi
home=$(cd "$venv" && pwd)
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

if [ $lock = gpu ]; then
    # Without an NVIDIA driver, a stub library allows importing MXNet for the build and the tests.
    if command -v g++ >/dev/null; then
        mkdir -p "$venv/stand-in"
        g++ -x c -shared -fPIC -O1 -o "$venv/stand-in/libcuda.so.1" launch/environment/stub_driver.c
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
    "$venv/bin/python" -c 'import mxnet' || fail "mxnet cannot be imported; see the message above"
    echo "$run_sum" >"$venv/.stamp-run"
fi

if is_pending checkout; then
    # An editable installation makes the packages of the checkout importable from any folder.  pip
    # uses the setuptools of the lock file and contacts no package index.
    pip install --quiet --no-index --no-deps --no-build-isolation --editable .
    echo "$checkout_sum" >"$venv/.stamp-checkout"
fi

if is_pending horovod; then
    [ $lock = cpu ] || [ "$stage" = gpu ] || find_cuda_11
    build_horovod
    echo "$horovod_sum" >"$venv/.stamp-horovod"
fi

if is_pending ops && [ -z "$skip_reason" ] && [ -f ops/build.py ]; then
    say "compiling the fused operators (half a minute)"
    "$venv/bin/python" -m ops >/dev/null && echo "$ops_sum" >"$venv/.stamp-ops"
fi

if is_pending dev; then
    say "installing requirements/dev.txt (tests and lint)"
    pip install --quiet --require-hashes -r requirements/dev.txt
    # Without dependencies: OpenCV and ONNX Runtime are those of cpu.txt or gpu.txt.
    pip install --quiet --no-deps --require-hashes -r requirements/align.txt
    echo "$dev_sum" >"$venv/.stamp-dev"
fi
say "ready: $("$venv/bin/python" -c 'import sys; print(sys.version.split()[0])') in $venv"
