# SPDX-License-Identifier: Apache-2.0
# The GPU image.  docker/README.md describes its build and use; docker/Dockerfile.cpu is the CPU image.
#   docker build -t faces-gpu .            CUDA 11.8, cuDNN 8, MXNet from wheels: Pascal to Ada
#   docker build -t faces-gpu --target ngc --build-arg RUN_BASE=... .    NGC's MXNet: Hopper too
# BASE provides nvcc.  RUN_BASE contains no CUDA: MXNet loads CUDA from the wheels, and the labels of
# NVIDIA's CUDA images refuse drivers that work with the wheels.  Both need the same Python version.
ARG BASE=nvidia/cuda:11.8.0-devel-ubuntu22.04
ARG RUN_BASE=ubuntu:22.04

# This stage compiles Horovod with NCCL; the final image contains no compiler.
FROM ${BASE} AS builder
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates g++ make python3 python3-venv
WORKDIR /train
COPY Makefile ranges.py suggestions.py aliases.py ./
COPY requirements requirements
COPY launch launch
RUN PIP_NO_CACHE_DIR=1 make gpu
# nvcc of this base also compiles the GPU operators.
COPY pyproject.toml ./
COPY ops ops
RUN make setup VENV=.venv-gpu

FROM ${RUN_BASE} AS system
# --no-upgrade keeps the packages of the base unchanged.  MXNet needs libgomp1 and libquadmath0.
# horovodrun starts ranks on other hosts through ssh.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --no-upgrade \
        libgomp1 libquadmath0 make openssh-client openssh-server python3 \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
# Users, folders and ssh are as in docker/Dockerfile.cpu.  The base may already use that user ID.
ARG USER_ID=1000
RUN useradd --non-unique --uid "${USER_ID}" --create-home --shell /bin/bash trainer \
    && mkdir -p /train/data /train/runs \
    && chmod 1777 /train/data /train/runs \
    && printf 'UserKnownHostsFile /dev/null\nLogLevel ERROR\n' >/etc/ssh/ssh_config.d/train.conf
WORKDIR /train
# NVIDIA_DRIVER_CAPABILITIES selects the driver libraries that NVIDIA's container toolkit mounts.
# video is libnvcuvid, which nvJPEG needs to use the JPEG hardware of A100 and H100.
ENV LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    IMAGE_DEVICE=gpu
ENTRYPOINT ["/train/docker/entrypoint.sh"]

FROM system AS wheels
COPY --from=builder /train/.venv-gpu .venv-gpu
COPY . .
# The first command fails if a library is missing; the build has no driver.  The second one fails if
# the set-up is incomplete: in a container there is no compiler and the environment is read-only.
RUN .venv-gpu/bin/python -m launch.environment.gpu_check \
    && pending=$(make --silent setup VENV=.venv-gpu) && [ -z "${pending}" ]
ARG COMMIT=unknown
# VENV is the environment of `make train`.  Some clusters mount the driver at /usr/local/nvidia, as
# NVIDIA's own images expect.  450.80.02 is NVIDIA's minimum driver for CUDA 11.x.
ENV VENV=.venv-gpu \
    PATH=/train/.venv-gpu/bin:/usr/local/nvidia/bin:$PATH \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    SOURCE_COMMIT=${COMMIT} \
    IMAGE_MIN_DRIVER=450.80.02 \
    IMAGE_MAX_CAPABILITY=8.9
ARG USER_ID=1000
USER ${USER_ID}

FROM system AS ngc
COPY requirements/ngc.txt requirements/ngc.txt
COPY pyproject.toml ./
# The environment adds packages to NGC's and replaces none.  The stamp files tell setup.sh and make
# that the set-up is complete.  NGC's Horovod may prefer MPI, but launch/ranks/comm.py reads the
# variables of Gloo's launcher; so the wrapper adds --gloo.
RUN horovodrun=$(command -v horovodrun) \
    && python3 -m venv --system-site-packages --without-pip .venv-gpu \
    && python3 -m pip --python .venv-gpu/bin/python install --no-cache-dir --no-deps \
        --require-hashes -r requirements/ngc.txt \
    && python3 -m pip --python .venv-gpu/bin/python install --no-cache-dir --no-index --no-deps \
        --no-build-isolation --editable . \
    && printf '#!/bin/sh\nexec %s --gloo "$@"\n' "${horovodrun}" >.venv-gpu/bin/horovodrun \
    && chmod 755 .venv-gpu/bin/horovodrun \
    && touch .venv-gpu/.stamp-image .venv-gpu/.stamp-horovod
COPY . .
# Compile the operators now, because the environment is read-only in a container.  CUDA's stub of
# libcuda lets MXNet load without a driver.  The operators are optional; runs log their absence.
RUN stub=$(mktemp -d) \
    && ln -s /usr/local/cuda/lib64/stubs/libcuda.so "${stub}/libcuda.so.1" \
    && { LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+${LD_LIBRARY_PATH}:}${stub}" .venv-gpu/bin/python -m ops \
        || echo 'docker: the image has no compiled operators and no JPEG decoder; the lines above give the reason'; } \
    && rm -r "${stub}"
# COMMIT identifies the sources: `--build-arg COMMIT=$(git describe --always --dirty)`.
ARG COMMIT=unknown
# Drivers from NVIDIA's release notes of NGC's MXNet 24.05 and 24.06: 545, or three older branches
# with CUDA's forward compatibility on data-centre GPUs.
ENV VENV=.venv-gpu \
    PATH=/train/.venv-gpu/bin:$PATH \
    SOURCE_COMMIT=${COMMIT} \
    IMAGE_MIN_DRIVER=545 \
    IMAGE_COMPAT_DRIVERS="470.57 525.85 535.86"
ARG USER_ID=1000
USER ${USER_ID}

# The default target of `docker build`.
FROM wheels
