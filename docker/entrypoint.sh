#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# First process of the images: looks for what containers usually lack, then becomes the command.
#
# Every fault is one sentence and exit code 2.  Only commands that train or verify are checked, so
# that a shell opens in any container; `check` does nothing else.  The image says what it was built
# for in IMAGE_DEVICE (cpu, gpu), IMAGE_MIN_DRIVER and IMAGE_MAX_CAPABILITY.
set -euo pipefail

# Shared memory for a rank.  NCCL: 8 ranks make the 1 GiB that NVIDIA's notes ask for.  Worker
# processes of data.loader=cpu: 55 MiB measured at the default batch of 128.  Gloo and DALI need none
# (40 KiB measured on two ranks), so Docker's 64 MiB do for them.
NCCL_MIB=128
WORKERS_MIB=64

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

check_gpu() {
    [ "${IMAGE_DEVICE:-cpu}" = gpu ] && [ "$device" != cpu ] || return 0
    local found count driver capability
    # nvidia-smi comes from the host with the driver, only with --gpus.
    found=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null) || found=
    [ -n "$found" ] ||
        fail "docker: no GPU is visible in this container of the GPU image, got nothing from nvidia-smi; add --gpus all (the host needs NVIDIA's container toolkit), or run.device=cpu"
    count=$(wc -l <<<"$found")
    [ "$ranks" != all ] || ranks=$count
    IFS=', ' read -r driver capability <<<"$found"
    if older "$driver" "${IMAGE_MIN_DRIVER:-0}"; then
        fail "docker: the NVIDIA driver of the host is too old for this image, got $driver; install $IMAGE_MIN_DRIVER or newer on the host"
    fi
    if [ -n "${IMAGE_MAX_CAPABILITY-}" ] && older "$IMAGE_MAX_CAPABILITY" "$capability"; then
        fail "docker: MXNet in this image has no code for GPUs newer than compute capability $IMAGE_MAX_CAPABILITY, got $capability; build the image on NGC's MXNet (docker/README.md)"
    fi
    [ "$count" -ge "$ranks" ] ||
        fail "docker: every rank needs a GPU of its own, got $ranks ranks on this host and $count visible GPUs; use fewer ranks or --gpus all"
    say "GPUs: $count, driver $driver, compute capability $capability"
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
    # Gloo asks for the address of its own host and does not survive without (launch/comm.py).
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
if [ "$1" = sshd ]; then exec "$(dirname "$0")/sshd.sh" "${@:2}"; fi
exec "$@"
