# SPDX-License-Identifier: Apache-2.0
# Builds Horovod for the MXNet of $venv, whose full path is $home; setup.sh sources it.
#
# With NCCL where MXNet is the one for GPUs and a CUDA 11 compiler is at hand, else for the host's
# memory alone.  Which it became is asked of Horovod itself at run time (launch/ranks/comm.py).
# shellcheck shell=bash disable=SC2154

cuda_home='' cuda_cxx=''

# Set cuda_home and cuda_cxx to a CUDA 11 toolkit and a C++ compiler that it takes; where there is
# none, leave them empty and say what it means.
find_cuda_11() {
    local nvcc release cxx scratch found='no nvcc'
    scratch=$(mktemp -d)
    echo '#include <functional>' >"$scratch/try.cu" # what an nvcc fails on if the compiler is too new
    for nvcc in ${CUDA_HOME:+"$CUDA_HOME/bin/nvcc"} "$(command -v nvcc || true)" /usr/local/cuda-11*/bin/nvcc; do
        [ -x "$nvcc" ] || continue
        release=$({ "$nvcc" --version || true; } | sed -n 's/.*release \([0-9.]*\).*/\1/p')
        found="$nvcc, which is of CUDA ${release:-?}"
        case $release in 11.*) ;; *) continue ;; esac
        for cxx in ${CXX:-} g++ g++-11 g++-10 g++-9; do
            # With its folder: nvcc may silently take another one for a bare name.
            if cxx=$(command -v "$cxx") &&
                "$nvcc" -ccbin "$cxx" -c -o "$scratch/try.o" "$scratch/try.cu" >/dev/null 2>&1; then
                cuda_home=$(dirname "$(dirname "$nvcc")") cuda_cxx=$cxx
                break 2
            fi
        done
        found="$nvcc, which compiles with neither g++ nor g++-11, 10 or 9"
    done
    rm -rf "$scratch"
    [ -n "$cuda_home" ] ||
        say "several GPUs will exchange gradients through the host's memory: NCCL needs an nvcc of CUDA 11, found $found (docs/gpu.md)"
}

build_horovod() {
    local log=$venv/horovod-build.log nccl build=()
    rm -f "$venv/.stamp-nccl"
    if [ -n "$cuda_home" ]; then
        say "building Horovod for MXNet with Gloo and NCCL, by $cuda_home/bin/nvcc (3 to 5 minutes)"
        # The wheel of NCCL has no libnccl.so, which a linker looks for.
        nccl=$("$venv/bin/python" -c 'import nvidia.nccl as n; print(n.__path__[0])')
        mkdir -p "$venv/nccl"
        ln -sfn "$nccl/include" "$venv/nccl/include"
        mkdir -p "$venv/nccl/lib" && ln -sfn "$nccl/lib/libnccl.so.2" "$venv/nccl/lib/libnccl.so"
        build+=(HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=shared HOROVOD_NCCL_HOME="$home/nccl"
            HOROVOD_CUDA_HOME="$cuda_home" CUDAToolkit_ROOT="$cuda_home" CXX="$cuda_cxx"
            HOROVOD_BUILD_CUDA_CC_LIST=50,60,70,80,86 # what MXNet's wheel has
            # pip would take the wheel that it has built and kept for the other kind.
            PIP_NO_CACHE_DIR=1)
    else
        say "building Horovod for MXNet with Gloo (2 to 3 minutes)"
        if [ $lock = gpu ]; then
            # Horovod insists on CUDA's compiler where it sees MXNet with CUDA.  The MXNet for the
            # CPU has the same headers and the same layout of what Horovod touches.
            awk '/^[a-z]/ { take = /^mxnet==/ } take' requirements/cpu.txt >"$venv/mxnet-cpu.txt"
            pip install --quiet --no-deps --require-hashes --target "$venv/mxnet-cpu" -r "$venv/mxnet-cpu.txt"
            build+=(PYTHONPATH="$home/mxnet-cpu")
        fi
    fi
    # pip unpacks and builds under TMPDIR; cmake and make come from PATH, the wheel's cmake first.
    if ! env PATH="$home/bin:${cuda_home:+$cuda_home/bin:}$PATH" MAKEFLAGS="-j$(nproc)" \
        HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
        HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 "${build[@]}" \
        "$venv/bin/python" -m pip --disable-pip-version-check install --no-build-isolation --no-deps \
        --force-reinstall --require-hashes -v -r requirements/horovod.txt >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "Horovod did not build; the whole log is in $log"
    fi
    rm -rf "$venv/mxnet-cpu" "$venv/mxnet-cpu.txt"
    "$venv/bin/python" -c 'import horovod.mxnet' || fail "horovod.mxnet does not import; the message above says why"
    [ -z "$cuda_home" ] || echo "$cuda_home" >"$venv/.stamp-nccl"
}
