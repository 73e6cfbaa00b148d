# SPDX-License-Identifier: Apache-2.0
# Functions that build Horovod for the MXNet in $venv (absolute path: $home); setup.sh sources them.
#
# The build uses NCCL if $venv has MXNet for CUDA and a CUDA 11 compiler is installed, otherwise Gloo
# alone.  At run time launch/ranks/comm.py asks Horovod whether it was built with NCCL.
# shellcheck shell=bash disable=SC2154

cuda_home='' cuda_cxx=''

# Set cuda_home to a CUDA 11 toolkit and cuda_cxx to a C++ compiler that it supports.  Without such a
# toolkit, leave both empty and print the consequence.
find_cuda_11() {
    local nvcc release cxx scratch found='no nvcc'
    scratch=$(mktemp -d)
    echo '#include <functional>' >"$scratch/try.cu" # nvcc fails on this file if the C++ compiler is too new
    for nvcc in ${CUDA_HOME:+"$CUDA_HOME/bin/nvcc"} "$(command -v nvcc || true)" /usr/local/cuda-11*/bin/nvcc; do
        [ -x "$nvcc" ] || continue
        release=$({ "$nvcc" --version || true; } | sed -n 's/.*release \([0-9.]*\).*/\1/p')
        found="$nvcc of CUDA ${release:-unknown}"
        case $release in 11.*) ;; *) continue ;; esac
        for cxx in ${CXX:-} g++ g++-11 g++-10 g++-9; do
            # nvcc may silently choose another compiler for a name without a folder.
            if cxx=$(command -v "$cxx") &&
                "$nvcc" -ccbin "$cxx" -c -o "$scratch/try.o" "$scratch/try.cu" >/dev/null 2>&1; then
                cuda_home=$(dirname "$(dirname "$nvcc")") cuda_cxx=$cxx
                break 2
            fi
        done
        found="$nvcc, which supports neither g++ nor g++-11, g++-10 or g++-9"
    done
    rm -rf "$scratch"
    [ -n "$cuda_home" ] ||
        say "Horovod is built without NCCL, so several GPUs exchange gradients through host memory: NCCL requires an nvcc of CUDA 11, got $found (docs/gpu.md)"
}

build_horovod() {
    local log=$venv/horovod-build.log nccl build=()
    rm -f "$venv/.stamp-nccl"
    if [ -n "$cuda_home" ]; then
        say "building Horovod for MXNet with Gloo and NCCL, using $cuda_home/bin/nvcc (3 to 5 minutes)"
        # The linker needs libnccl.so; the NCCL wheel contains only libnccl.so.2.
        nccl=$("$venv/bin/python" -c 'import nvidia.nccl as n; print(n.__path__[0])')
        mkdir -p "$venv/nccl"
        ln -sfn "$nccl/include" "$venv/nccl/include"
        mkdir -p "$venv/nccl/lib" && ln -sfn "$nccl/lib/libnccl.so.2" "$venv/nccl/lib/libnccl.so"
        build+=(HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=shared HOROVOD_NCCL_HOME="$home/nccl"
            HOROVOD_CUDA_HOME="$cuda_home" CUDAToolkit_ROOT="$cuda_home" CXX="$cuda_cxx"
            HOROVOD_BUILD_CUDA_CC_LIST=50,60,70,80,86 # the capabilities in MXNet's wheel
            # pip's cache may contain a Horovod wheel that was built without NCCL.
            PIP_NO_CACHE_DIR=1)
    else
        say "building Horovod for MXNet with Gloo (2 to 3 minutes)"
        if [ $lock = gpu ]; then
            # Horovod requires nvcc if it finds MXNet with CUDA.  MXNet for the CPU has the same
            # headers and the same memory layout as MXNet with CUDA, so this build uses MXNet for the
            # CPU.
            awk '/^[a-z]/ { take = /^mxnet==/ } take' requirements/cpu.txt >"$venv/mxnet-cpu.txt"
            pip install --quiet --no-deps --require-hashes --target "$venv/mxnet-cpu" -r "$venv/mxnet-cpu.txt"
            build+=(PYTHONPATH="$home/mxnet-cpu")
        fi
    fi
    # pip builds under TMPDIR.  The cmake of the wheel precedes the system's in PATH.
    # Horovod's sources rely on headers that GCC 13 (Ubuntu 24.04) no longer includes indirectly.
    if ! env CXXFLAGS="-include stdexcept -include cstdint ${CXXFLAGS:-}" \
        PATH="$home/bin:${cuda_home:+$cuda_home/bin:}$PATH" MAKEFLAGS="-j$(nproc)" \
        HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
        HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 "${build[@]}" \
        "$venv/bin/python" -m pip --disable-pip-version-check install --no-build-isolation --no-deps \
        --force-reinstall --require-hashes -v -r requirements/horovod.txt >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "Horovod did not build, got the errors above; the whole log is in $log"
    fi
    rm -rf "$venv/mxnet-cpu" "$venv/mxnet-cpu.txt"
    "$venv/bin/python" -c 'import horovod.mxnet' || fail "horovod.mxnet cannot be imported; see the message above"
    [ -z "$cuda_home" ] || echo "$cuda_home" >"$venv/.stamp-nccl"
}
