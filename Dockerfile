# SPDX-License-Identifier: Apache-2.0
# The GPU image (docker/README.md says how to build and run it; docker/Dockerfile.cpu is the other).
#   docker build -t faces-gpu .            CUDA 11.8, cuDNN 8, MXNet from wheels: Pascal to Ada
#   docker build -t faces-gpu --target ngc --build-arg RUN_BASE=... .    NGC's MXNet: Hopper too
ARG BASE=nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04
ARG RUN_BASE=nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04

# Horovod is compiled with NCCL here; nvcc and the compilers stay behind.
FROM ${BASE} AS builder
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates g++ make python3 python3-venv
WORKDIR /train
COPY Makefile ./
COPY requirements requirements
COPY launch launch
RUN PIP_NO_CACHE_DIR=1 make gpu
# With nvcc of this base also those for GPUs; the stand-in lets MXNet be imported without a driver.
COPY ops ops
RUN LD_LIBRARY_PATH=/train/.venv-gpu/stand-in:${LD_LIBRARY_PATH} .venv-gpu/bin/python -m ops

FROM ${RUN_BASE} AS system
# --no-upgrade: what the base brings stays as it is.  libgomp1, libquadmath0: of MXNet.  ssh:
# horovodrun starts the ranks of other hosts with it.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --no-upgrade \
        libgomp1 libquadmath0 make openssh-client openssh-server python3 \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
# Users, folders and ssh as in docker/Dockerfile.cpu; the base may have a user of that number.
ARG USER_ID=1000
RUN useradd --non-unique --uid "${USER_ID}" --create-home --shell /bin/bash trainer \
    && mkdir -p /train/data /train/runs \
    && chmod 1777 /train/data /train/runs \
    && printf 'UserKnownHostsFile /dev/null\nLogLevel ERROR\n' >/etc/ssh/ssh_config.d/train.conf
WORKDIR /train
ENV LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    IMAGE_DEVICE=gpu
ENTRYPOINT ["/train/docker/entrypoint.sh"]

FROM system AS ngc
COPY requirements/ngc.txt requirements/ngc.txt
# Beside NGC's packages, not over them.  Its Horovod may know MPI too and would prefer it; the ranks
# here find each other by what Gloo's launcher tells them (launch/comm.py).
RUN horovodrun=$(command -v horovodrun) \
    && python3 -m venv --system-site-packages --without-pip .venv \
    && python3 -m pip --python .venv/bin/python install --no-cache-dir --no-deps --require-hashes \
        -r requirements/ngc.txt \
    && printf '#!/bin/sh\nexec %s --gloo "$@"\n' "${horovodrun}" >.venv/bin/horovodrun \
    && chmod 755 .venv/bin/horovodrun
COPY . .
# Which sources these are: `--build-arg COMMIT=$(git describe --always --dirty)`.
ARG COMMIT=unknown
ENV PATH=/train/.venv/bin:$PATH \
    SOURCE_COMMIT=${COMMIT} \
    IMAGE_MIN_DRIVER=525.60.13
ARG USER_ID=1000
USER ${USER_ID}

FROM system AS wheels
COPY --from=builder /train/.venv-gpu .venv-gpu
COPY . .
# A library that only compilers bring would be missed here first; there is no driver in a build.
RUN .venv-gpu/bin/python -m launch.environment.gpu_check
ARG COMMIT=unknown
# VENV: the environment that `make train` uses.
ENV VENV=.venv-gpu \
    PATH=/train/.venv-gpu/bin:$PATH \
    SOURCE_COMMIT=${COMMIT} \
    IMAGE_MIN_DRIVER=450.80.02 \
    IMAGE_MAX_CAPABILITY=8.9
ARG USER_ID=1000
USER ${USER_ID}
