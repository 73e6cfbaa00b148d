# `make train` and `make test` do all the set-up; nothing else has to be called first.
PYTHON ?=
# The GPU environment where it is complete and a driver can be loaded; VENV=.venv overrides.
GPUS := $(shell [ -e .venv-gpu/.stamp-horovod ] && .venv-gpu/bin/python -m launch.environment.gpu)
VENV ?= $(if $(GPUS),.venv-gpu,.venv)
NP ?= $(or $(if $(filter %-gpu,$(VENV)),$(filter-out 0,$(GPUS))),2)
DATA ?=
# Raw text: make must not expand a "$" in a path.  The recipe reads DATA and CFG from its environment,
# so that quotes and spaces in them are harmless.
override DATA := $(value DATA)
CFG ?= $(if $(DATA),own.yaml,demo.yaml)
export DATA CFG
# With make -C, relative paths refer to the folder of the caller, in which the launcher then runs.
CALLER := $(if $(findstring w,$(firstword -$(MAKEFLAGS))),$(if $(PWD),$(PWD),$(CURDIR)),$(CURDIR))
export CALLER
TESTS ?= tests
ARGS ?=
JOBS ?= 4
RUN := $(VENV)/bin/python
SAMPLE := data/sample_faces

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14
train: setup $(if $(DATA),,sample) ## train and verify; DATA=FOLDER: on an InsightFace folder; NP, CFG, ARGS
	@$(if $(filter-out $(CURDIR),$(CALLER)),cd "$$CALLER" && )exec $(if $(filter-out $(CURDIR),$(CALLER)),"$(abspath $(RUN))",$(RUN)) -m launch.local -np $(NP) --cfg "$$CFG" $(if $(DATA),--data "$$DATA") $(ARGS)
# The tests start some hundred processes, each of which would compile the modules again.
test: setup-dev ## run the tests; TESTS=tests/pipeline for a part, JOBS=1 in one process
	@PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)
lint: setup-dev ## ruff, mypy and the words of CONTRIBUTING.md
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(RUN) .ci/words.py
format: setup-dev ## let ruff rewrite the sources
	@$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .
bench: setup ## time loaders, heads, steps, operators, embeddings against their baselines; ARGS=--quick, TORCH_PYTHON=python
	@$(RUN) benchmarks/loader_throughput.py $(ARGS) && $(RUN) benchmarks/feed_rate.py $(ARGS) && $(RUN) benchmarks/step_throughput.py $(ARGS) && $(RUN) benchmarks/operator_step.py $(ARGS) && $(RUN) benchmarks/embedding_rate.py $(ARGS) && $(RUN) benchmarks/head_step.py $(ARGS) && $(RUN) benchmarks/train_step.py $(ARGS)
sample: setup ## render the sample faces
	@$(RUN) tools/make_sample_faces.py $(SAMPLE)
gpu: ## make .venv-gpu and test it; train and test use it where there is a driver
	@bash launch/environment/setup.sh .venv-gpu "$(PYTHON)" gpu && .venv-gpu/bin/python -m launch.environment.gpu_check
gpu-day: ## measure what only GPUs show, or rehearse it without one; after `make setup sample`
	@exec $(or $(wildcard $(RUN)),python3) -m tools.gpu_day --venv $(VENV) $(ARGS)
docker-check: setup-dev ## read the Dockerfiles, resolve what the images install
	@bash docker/check.sh
image-cpu: ## build the CPU image and run it (root; buildah and debootstrap, no daemon)
	@bash docker/image_check.sh
image-gpu: ## build the GPU images without CUDA bases, run them without a GPU
	@bash docker/image_check_gpu.sh
setup: ## make .venv
	@bash launch/environment/setup.sh $(VENV) "$(PYTHON)"
setup-dev: ## make .venv with what tests and lint need
	@bash launch/environment/setup.sh $(VENV) "$(PYTHON)" dev
clean: ## remove .venv, .venv-gpu and the sample (runs stay)
	@rm -rf .venv .venv-gpu $(SAMPLE)
.PHONY: help train test lint format bench sample gpu gpu-day docker-check image-cpu image-gpu setup setup-dev clean
.DEFAULT_GOAL := help
