#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# First process of the images: looks for what containers usually lack, then becomes the command.
#
# Every fault is one sentence and exit code 2.  Only commands that train or verify are checked, so
# that a shell opens in any container; `check` does nothing else.  The image says what it was built
# for in IMAGE_DEVICE (cpu, gpu), IMAGE_MIN_DRIVER, IMAGE_COMPAT_DRIVERS (the oldest driver of each
# older branch that does too) and IMAGE_MAX_CAPABILITY.  Where NVIDIA's own entrypoint is in the
# base, it comes between this one and the command: it switches CUDA's forward compatibility on.
set -euo pipefail

# Shared memory for a rank.  NCCL: 8 ranks make the 1 GiB that NVIDIA's notes ask for.  Worker
# processes of data.loader=cpu: 55 MiB measured at the default batch of 128.  Gloo and DALI need none
# (40 KiB measured on two ranks), so Docker's 64 MiB do for them.
NCCL_MIB=128
WORKERS_MIB=64
NVIDIA_ENTRYPOINT=${IMAGE_ENTRYPOINT:-/opt/nvidia/nvidia_entrypoint.sh}

fail() {
    printf '%s\n' "$*" >&2
    exit 2
}

usage() {
    cat <<'TEXT'
docker run [OPTIONS] IMAGE COMMAND

  make train                        render sample faces, train on them with two ranks, verify
  make train DATA=/data/FOLDER      train on an InsightFace folder (CPU image)
  horovodrun -np 8 python run_train.py --cfg mbf_arcface.yaml data.records=/data/FOLDER
  python -m evaluation verify --checkpoint runs/NAME --sets /data/FILE.bin
  check [COMMAND]                   say what a training would find here, start nothing
  sshd [PORT]                       wait for the horovodrun of another host (port 2222)
  bash                              a shell

OPTIONS that a training needs:
  -v FOLDER:/data:ro  -v RUNS:/train/runs  --user $(id -u):$(id -g)  --init
  --gpus all  --shm-size=8g  --ulimit memlock=-1      (the GPU image)
docker/README.md has whole command lines.
TEXT
}

# What the command line says: sets trains, ranks, hosts, records, runs, device, loader and sample.
read_command() {
    trains=false ranks=1 hosts='' records='' runs=runs device=auto loader=dali sample=false
    local words=() word before=''
    for word in "$@"; do
        # shellcheck disable=SC2206  # make and the shell split ARGS in the same way
        if [[ $word == ARGS=* ]]; then words+=(${word#ARGS=}); else words+=("$word"); fi
    done
    if [[ ${1-} == make && " $* " == *" train "* ]]; then
        trains=true ranks=2 sample=true
        [ "${IMAGE_DEVICE:-cpu}" = cpu ] || ranks=all
    fi
    for word in "${words[@]}"; do
        case $before in
            -np | --num-proc) ranks=$word ;;
            -H | --hosts) hosts=$word ;;
        esac
        case $word in
            horovodrun | */horovodrun | run_train.py | */run_train.py) trains=true ;;
            launch.local | launch.hosts | launch.slurm | evaluation) trains=true ;;
            NP=*) ranks=${word#NP=} ;;
            DATA=?*) records=${word#DATA=} sample=false ;;
            data.records=*) records=${word#data.records=} ;;
            data.loader=*) loader=${word#data.loader=} ;;
            run.dir=?*) runs=${word#run.dir=} ;;
            run.device=*) device=${word#run.device=} ;;
        esac
        before=$word
    done
    [[ $ranks =~ ^([0-9]+|all)$ ]] || ranks=1 # the launcher will say what is wrong with it
    # Of the ranks on several hosts, those on this one count.
    if [[ $hosts =~ :([0-9]+) ]]; then ranks=${BASH_REMATCH[1]}; fi
    # Without NP the Makefile takes all GPUs, and two ranks on the CPU.
    if [ "$ranks" = all ] && [ "$device" = cpu ]; then ranks=2; fi
}

older() { # older A B: whether version A comes before version B
    [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

forward_compatible() { # forward_compatible DRIVER: whether it is of a branch that the image names
    local oldest
    for oldest in ${IMAGE_COMPAT_DRIVERS-}; do
        if [ "${1%%.*}" = "${oldest%%.*}" ] && ! older "$1" "$oldest"; then return 0; fi
    done
    return 1
}

# Ask nvidia-smi for one property of every GPU, which becomes `reply`, a line for each.  One property
# at a time: an nvidia-smi that does not know one of them (R470: compute_cap) answers none.
ask_nvidia_smi() { # ask_nvidia_smi PROPERTY PATTERN: false, and why in `reason`, without such lines
    local code=0
    reply=$(nvidia-smi --query-gpu="$1" --format=csv,noheader 2>&1) || code=$?
    reason="code $code and '${reply%%$'\n'*}' from nvidia-smi"
    if [ $code = 127 ] || [ $code = 126 ]; then reason="no nvidia-smi"; fi
    [ $code = 0 ] && reply=$(grep -E "^ *$2 *$" <<<"$reply" | tr -d ' ')
}

check_gpu() {
    [ "${IMAGE_DEVICE:-cpu}" = gpu ] && [ "$device" != cpu ] || return 0
    local reply reason count driver capability=unknown needs='' compat=''
    # nvidia-smi comes from the host with the driver, only with --gpus.
    ask_nvidia_smi driver_version '[0-9]+(\.[0-9]+)+' ||
        fail "docker: no GPU is visible in this container of the GPU image, got $reason; add --gpus all (the host needs NVIDIA's container toolkit, and nvidia-smi must list the GPUs there), or run.device=cpu"
    count=$(wc -l <<<"$reply")
    [ "$ranks" != all ] || ranks=$count
    driver=${reply%%$'\n'*}
    if older "$driver" "${IMAGE_MIN_DRIVER:-0}"; then
        [ -z "${IMAGE_COMPAT_DRIVERS-}" ] ||
            needs=" (data-centre GPUs: one of these or a newer one of its branch: $IMAGE_COMPAT_DRIVERS)"
        forward_compatible "$driver" ||
            fail "docker: the NVIDIA driver of the host is too old for this image, got $driver; install $IMAGE_MIN_DRIVER or newer on the host$needs"
        compat=" with CUDA's forward compatibility, which data-centre GPUs have"
    fi
    # Where it stays unknown, the ranks ask the driver (launch/environment/gpu.py).
    if ask_nvidia_smi compute_cap '[0-9]+\.[0-9]+'; then capability=${reply%%$'\n'*}; fi
    if [ -n "${IMAGE_MAX_CAPABILITY-}" ] && [ "$capability" != unknown ] && older "$IMAGE_MAX_CAPABILITY" "$capability"; then
        fail "docker: MXNet in this image has no code for GPUs newer than compute capability $IMAGE_MAX_CAPABILITY, got $capability; build the image on NGC's MXNet (docker/README.md)"
    fi
    [ "$count" -ge "$ranks" ] ||
        fail "docker: every rank needs a GPU of its own, got $ranks ranks on this host and $count visible GPUs; use fewer ranks or --gpus all"
    say "GPUs: $count, driver $driver$compat, compute capability $capability"
}

lend_driver() {
    # Without --gpus there is no driver; MXNet for GPUs is loaded with the stand-in of `make gpu`.
    local stand_in="$PWD/${VENV:-.venv}/stand-in"
    if [ "$device" = cpu ] && [ -e "$stand_in/libcuda.so.1" ] && ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
        export LD_LIBRARY_PATH="$stand_in${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" MXNET_CUDA_LIB_CHECKING=0
    fi
}

check_shared_memory() {
    local have need=0
    have=$(df --output=size -BM /dev/shm 2>/dev/null | tail -n 1 | tr -dc 0-9) || have=
    if [ "$ranks" -gt 1 ] && [ "${IMAGE_DEVICE:-cpu}" = gpu ] && [ "$device" != cpu ]; then
        need=$((ranks * NCCL_MIB))
    fi
    if [ "$loader" = cpu ]; then need=$((need + ranks * WORKERS_MIB)); fi
    [ "${have:-0}" -ge "$need" ] ||
        fail "docker: $ranks ranks need $need MiB of shared memory in /dev/shm, got ${have:-none} MiB; add --shm-size=8g"
    say "shared memory: ${have:-0} MiB"
}

check_host_name() {
    [ "$ranks" -gt 1 ] || [ -n "$hosts" ] || return 0
    # Gloo asks for the address of its own host and does not survive without (launch/ranks/comm.py).
    local name
    name=$(hostname)
    getent ahosts "$name" >/dev/null ||
        fail "docker: the name of this container cannot be looked up, got '$name'; add --add-host $name:127.0.0.1 or, for several hosts, --network host"
    say "host name: $name can be looked up"
}

writable() { # writable FOLDER: whether a file can be made there; the folder is made if need be
    local probe
    mkdir -p "$1" 2>/dev/null && probe=$(mktemp -p "$1" .probe-XXXXXX 2>/dev/null) && rm -f "$probe"
}

check_folders() {
    writable "$runs" ||
        fail "docker: the run folder cannot be written to by user $(id -u), got '$runs'; mount one of your own with -v RUNS:$(realpath -m "$runs") and add --user \$(id -u):\$(id -g)"
    say "run folder: $runs can be written to by user $(id -u)"
    if [ "$sample" = true ]; then
        writable data ||
            fail "docker: the sample faces cannot be written by user $(id -u), got 'data'; leave $(realpath -m data) unmounted or mount a folder of your own there"
    fi
    case $records in
        '' | \[* | *\$*) ;; # none, a list, or a variable: run_train.py looks at those
        *)
            [ -e "$records" ] ||
                fail "docker: there are no records in this container, got '$records'; mount them with -v FOLDER:$(realpath -m "$records"):ro"
            say "records: $records"
            ;;
    esac
}

give_home() { # a HOME for users whom the image does not know
    if ! writable "${HOME:-/}"; then
        HOME=$(mktemp -d)
        export HOME
    fi
}

[ $# -gt 0 ] || { usage && exit 0; }
give_home
quiet=true
if [ "$1" = check ]; then shift && quiet=false; fi
say() { [ "$quiet" = true ] || printf '%s\n' "$*"; }
read_command "$@"
lend_driver
if [ "$trains" = true ] || [ "$quiet" = false ]; then
    check_gpu
    check_shared_memory
    check_host_name
    check_folders
fi
[ "$quiet" = true ] || exit 0
if [ "$1" = sshd ]; then set -- "$(dirname "$0")/sshd.sh" "${@:2}"; fi
if [ -x "$NVIDIA_ENTRYPOINT" ]; then exec "$NVIDIA_ENTRYPOINT" "$@"; fi
exec "$@"
