#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build the stages of the GPU Dockerfile on Ubuntu 22.04 without CUDA, and run them without a GPU;
# docker/buildah.sh lists the requirements.
#
# Not covered: Horovod has no NCCL, because the base has no nvcc; a stand-in with the MXNet, DALI and
# Horovod of the CPU image replaces NGC's image.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=docker/buildah.sh
. docker/buildah.sh

make_base "${SUITE:-jammy}"
build gpu-wheels wheels Dockerfile --build-arg RUN_BASE="$base"
make_mounts
wheels=$(container gpu-wheels) && containers+=("$wheels")
nvidia_smi() { # nvidia_smi DRIVER CAPABILITY: mounts an nvidia-smi that lists one GPU; R470 has no compute_cap
    cat >"$work/nvidia-smi" <<SH
#!/bin/sh
case "\$*" in
    *compute_cap*) [ -n "$2" ] || { echo 'Field "compute_cap" is not a valid field to query.'; exit 2; }; echo "$2" ;;
    *) echo "$1" ;;
esac
SH
    chmod 755 "$work/nvidia-smi"
    smi=(-v "$work/nvidia-smi:/usr/local/bin/nvidia-smi:ro")
}

say "no command prints the usage"
inside "$wheels" -- | grep -q '^docker run ' || fail "the image without a command printed no usage"

say "without a GPU make train is refused"
refused "no GPU is visible" "$wheels" "${named[@]}" "${mounts[@]}" -- make train

say "the output of check with the nvidia-smi of old and new drivers"
for known in 470.182.03: 515.65.01:8.0 550.54.15:8.0; do
    nvidia_smi "${known%:*}" "${known#*:}"
    inside "$wheels" "${named[@]}" "${mounts[@]}" "${smi[@]}" -- check make train NP=1 | sed -n 1p
done
nvidia_smi 440.118.02 ''
refused "too old for this image" "$wheels" "${named[@]}" "${mounts[@]}" "${smi[@]}" -- make train NP=1

say "make train on the CPU: 20 steps on 2 ranks, with the stand-in driver"
inside "$wheels" "${named[@]}" "${mounts[@]}" -- make train ARGS='run.device=cpu train.max_steps=20 run.name=wheels'
finished wheels-001 20 2

say "the target ngc, on a stand-in for NGC's image"
make_base bookworm # the base of the CPU image
build cpu-run run docker/Dockerfile.cpu
build ngc-base ngc-base docker/Dockerfile.ngc-base --build-arg CPU_IMAGE=localhost/faces-cpu-run
build gpu-ngc ngc Dockerfile --build-arg RUN_BASE=localhost/faces-ngc-base
ngc=$(container gpu-ngc) && containers+=("$ngc")
nvidia_smi 520.61.05 8.0
refused "470.57 525.85 535.86" "$ngc" "${named[@]}" "${mounts[@]}" "${smi[@]}" -- make train NP=1
inside "$ngc" "${named[@]}" "${mounts[@]}" -- make train ARGS='run.device=cpu train.max_steps=20 run.name=ngc' | tee "$work/ngc.log"
finished ngc-001 20 2
grep -q "stand-in for NVIDIA's entrypoint" "$work/ngc.log" || fail "the entrypoint did not call NVIDIA's entrypoint; read $work/ngc.log"
grep -q 'operators native' "$work/runs/ngc-001/train.log" || fail "the run did not load the compiled operators; read $work/runs/ngc-001/train.log"

size gpu-wheels
size gpu-ngc
