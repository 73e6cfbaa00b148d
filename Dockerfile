# SPDX-License-Identifier: Apache-2.0
# The GPU image (docker/README.md says how to build and run it; docker/Dockerfile.cpu is the other).
#   docker build -t faces-gpu .            CUDA 11.8, cuDNN 8, MXNet from wheels: Pascal to Ada
#   docker build -t faces-gpu --target ngc --build-arg RUN_BASE=... .    NGC's MXNet: Hopper too
# BASE lends its nvcc.  RUN_BASE has no CUDA of its own: MXNet loads all of it from the wheels, and
# the labels of NVIDIA's bases would refuse drivers that the wheels run on.  Both have one Python.
ARG BASE=nvidia/cuda:11.8.0-devel-ubuntu22.04
ARG RUN_BASE=ubuntu:22.04

# Horovod is compiled with NCCL here; nvcc and the compilers stay behind.
FROM ${BASE} AS builder
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates g++ make python3 python3-venv
WORKDIR /train
COPY Makefile ranges.py ./
COPY requirements requirements
COPY launch launch
RUN PIP_NO_CACHE_DIR=1 make gpu
# With nvcc of this base also the operators for GPUs.
COPY pyproject.toml ./
COPY ops ops
RUN make setup VENV=.venv-gpu

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
# What NVIDIA's container toolkit mounts of the host's driver.  video: libnvcuvid, without which
# nvJPEG does not use the JPEG hardware of A100 and H100.
ENV LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    IMAGE_DEVICE=gpu
ENTRYPOINT ["/train/docker/entrypoint.sh"]

FROM system AS wheels
COPY --from=builder /train/.venv-gpu .venv-gpu
COPY . .
# A library that only compilers bring would be missed here first; there is no driver in a build.
# Nothing may be left to set up: there is no compiler, and the user cannot write here.
RUN .venv-gpu/bin/python -m launch.environment.gpu_check \
    && pending=$(make --silent setup VENV=.venv-gpu) && [ -z "${pending}" ]
ARG COMMIT=unknown
# VENV: the environment that `make train` uses.  /usr/local/nvidia: where some clusters mount the
# driver; NVIDIA's bases look there.  450.80.02: what NVIDIA asks for CUDA 11.x.
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
# Beside NGC's packages, not over them; the stamps tell setup.sh and make so.  NGC's Horovod may
# know MPI too and would prefer it; the ranks here find each other by what Gloo's launcher tells
# them (launch/ranks/comm.py).
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
# Here, as the user who runs cannot write to the environment.  CUDA's own stub lets MXNet be imported
# without a driver, if nothing else of the base does.  They are optional; runs say what they lack.
RUN stub=$(mktemp -d) \
    && ln -s /usr/local/cuda/lib64/stubs/libcuda.so "${stub}/libcuda.so.1" \
    && { LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+${LD_LIBRARY_PATH}:}${stub}" .venv-gpu/bin/python -m ops \
        || echo 'docker: no compiled operators and JPEG decoder in this image; the lines above say why'; } \
    && rm -r "${stub}"
# Which sources these are: `--build-arg COMMIT=$(git describe --always --dirty)`.
ARG COMMIT=unknown
# The drivers of NVIDIA's notes on NGC's MXNet 24.05 and 24.06: 545, or on data-centre GPUs, with
# CUDA's forward compatibility, those of three older branches.
ENV VENV=.venv-gpu \
    PATH=/train/.venv-gpu/bin:$PATH \
    SOURCE_COMMIT=${COMMIT} \
    IMAGE_MIN_DRIVER=545 \
    IMAGE_COMPAT_DRIVERS="470.57 525.85 535.86"
ARG USER_ID=1000
USER ${USER_ID}

# What `docker build` makes without --target.
FROM wheels
