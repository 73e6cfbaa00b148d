#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Entrypoint of the images: checks the options of the container, then executes the command.
#
# A failed check prints one sentence and ends with exit code 2.  Only commands that train or verify
# are checked, so a shell opens in any container; `check` starts no command.  The image declares its
# requirements in IMAGE_DEVICE (cpu, gpu), IMAGE_MIN_DRIVER, IMAGE_COMPAT_DRIVERS (the oldest
# supported driver of each older branch) and IMAGE_MAX_CAPABILITY.  If the base has NVIDIA's
# entrypoint, that one executes the command, because it enables CUDA's forward compatibility.
set -euo pipefail

# Shared memory per rank.  NCCL: NVIDIA's notes recommend 1 GiB, which is for 8 ranks.  Worker
# processes of data.loader=cpu: measured 55 MiB at the default batch size of 128.  Gloo and DALI use
# almost none (measured 40 KiB on two ranks), so Docker's default of 64 MiB is enough for them.
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
  python -m evaluation verify --model runs/NAME --sets /data/FILE.bin
  check [COMMAND]                   check this container for a command without starting it
  sshd [PORT]                       wait for horovodrun on another host (port 2222)
  bash                              open a shell

OPTIONS for training:
  -v FOLDER:/data:ro  -v RUNS:/train/runs  --user $(id -u):$(id -g)  --init
  --gpus all  --shm-size=8g  --ulimit memlock=-1      (the GPU image)
docker/README.md has complete command lines.
TEXT
}

# Parse the command line into trains, ranks, hosts, records, runs, device, loader and sample.
read_command() {
    trains=false ranks=1 hosts='' records='' runs=runs device=auto loader=dali sample=false
    local words=() word before=''
    for word in "$@"; do
        # shellcheck disable=SC2206  # make and the shell split ARGS the same
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
    [[ $ranks =~ ^([0-9]+|all)$ ]] || ranks=1 # the launcher reports the error
    # With several hosts, use the number of ranks on the first one.
    if [[ $hosts =~ :([0-9]+) ]]; then ranks=${BASH_REMATCH[1]}; fi
    # Without NP the Makefile starts a rank per GPU, or two ranks on the CPU.
    if [ "$ranks" = all ] && [ "$device" = cpu ]; then ranks=2; fi
}

older() { # older A B: succeeds if version A is older than version B
    [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

forward_compatible() { # forward_compatible DRIVER: succeeds if IMAGE_COMPAT_DRIVERS covers the driver
    local oldest
    for oldest in ${IMAGE_COMPAT_DRIVERS-}; do
        if [ "${1%%.*}" = "${oldest%%.*}" ] && ! older "$1" "$oldest"; then return 0; fi
    done
    return 1
}

# Query nvidia-smi for one property; `reply` has one line per GPU.  Each call queries one property,
# because nvidia-smi answers nothing if one of several is unknown (compute_cap in R470).
query_nvidia_smi() { # query_nvidia_smi PROPERTY PATTERN: fails, with `reason`, if no line matches
    local code=0
    reply=$(nvidia-smi --query-gpu="$1" --format=csv,noheader 2>&1) || code=$?
    reason="code $code and '${reply%%$'\n'*}' from nvidia-smi"
    if [ $code = 127 ] || [ $code = 126 ]; then reason="no nvidia-smi"; fi
    [ $code = 0 ] && reply=$(grep -E "^ *$2 *$" <<<"$reply" | tr -d ' ')
}

check_gpu() {
    [ "${IMAGE_DEVICE:-cpu}" = gpu ] && [ "$device" != cpu ] || return 0
    local reply reason count driver capability=unknown needs='' compat=''
    # With --gpus, nvidia-smi is mounted from the host together with the driver.
    query_nvidia_smi driver_version '[0-9]+(\.[0-9]+)+' ||
        fail "docker: no GPU is visible in this container of the GPU image, got $reason; add --gpus all (the host needs NVIDIA's container toolkit, and nvidia-smi must list the GPUs there), or run.device=cpu"
    count=$(wc -l <<<"$reply")
    [ "$ranks" != all ] || ranks=$count
    driver=${reply%%$'\n'*}
    if older "$driver" "${IMAGE_MIN_DRIVER:-0}"; then
        [ -z "${IMAGE_COMPAT_DRIVERS-}" ] ||
            needs=" (data-centre GPUs: or one of these drivers or a newer one of the same branch: $IMAGE_COMPAT_DRIVERS)"
        forward_compatible "$driver" ||
            fail "docker: the NVIDIA driver of the host is too old for this image, got $driver; install $IMAGE_MIN_DRIVER or newer on the host$needs"
        compat=" with CUDA's forward compatibility, which needs a data-centre GPU"
    fi
    # If the capability stays unknown, the ranks query the driver (launch/environment/gpu.py).
    if query_nvidia_smi compute_cap '[0-9]+\.[0-9]+'; then capability=${reply%%$'\n'*}; fi
    if [ -n "${IMAGE_MAX_CAPABILITY-}" ] && [ "$capability" != unknown ] && older "$IMAGE_MAX_CAPABILITY" "$capability"; then
        fail "docker: MXNet in this image supports no GPUs newer than compute capability $IMAGE_MAX_CAPABILITY, got $capability; build the image on NGC's MXNet (docker/README.md)"
    fi
    [ "$count" -ge "$ranks" ] ||
        fail "docker: every rank needs its own GPU, got $ranks ranks on this host and $count visible GPUs; use fewer ranks or add --gpus all"
    say "GPUs: $count, driver $driver$compat, compute capability $capability"
}

use_stand_in_driver() {
    # Without --gpus there is no driver.  The stand-in of `make gpu` lets MXNet for GPUs load.
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
        fail "docker: $ranks ranks need $need MiB of shared memory in /dev/shm, got ${have:-0} MiB; add --shm-size=8g"
    say "shared memory: ${have:-0} MiB"
}

check_host_name() {
    [ "$ranks" -gt 1 ] || [ -n "$hosts" ] || return 0
    # Gloo crashes if it cannot resolve the name of its own host (launch/ranks/comm.py).
    local name
    name=$(hostname)
    getent ahosts "$name" >/dev/null ||
        fail "docker: the host name of this container cannot be resolved, got '$name'; add --add-host $name:127.0.0.1 or, for several hosts, --network host"
    say "host name: $name can be resolved"
}

writable() { # writable FOLDER: creates the folder if needed; succeeds if a file can be created in it
    local probe
    mkdir -p "$1" 2>/dev/null && probe=$(mktemp -p "$1" .probe-XXXXXX 2>/dev/null) && rm -f "$probe"
}

check_folders() {
    writable "$runs" ||
        fail "docker: user $(id -u) cannot write to the run folder, got '$runs'; mount a folder that you own with -v RUNS:$(realpath -m "$runs") and add --user \$(id -u):\$(id -g)"
    say "run folder: user $(id -u) can write to $runs"
    if [ "$sample" = true ]; then
        writable data ||
            fail "docker: user $(id -u) cannot write the sample faces, got folder 'data'; do not mount $(realpath -m data), or mount a folder that you own there"
    fi
    case $records in
        '' | \[* | *\$*) ;; # none, a list, or a variable: run_train.py checks them
        *)
            [ -e "$records" ] ||
                fail "docker: the records do not exist in this container, got '$records'; mount them with -v FOLDER:$(realpath -m "$records"):ro"
            say "records: $records"
            ;;
    esac
}

set_home() { # sets a temporary HOME for users that the image does not know
    if ! writable "${HOME:-/}"; then
        HOME=$(mktemp -d)
        export HOME
    fi
}

[ $# -gt 0 ] || { usage && exit 0; }
set_home
quiet=true
if [ "$1" = check ]; then shift && quiet=false; fi
say() { [ "$quiet" = true ] || printf '%s\n' "$*"; }
read_command "$@"
use_stand_in_driver
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
