# `make train` and `make test` do all the set-up; nothing else has to be called first.
PYTHON ?=
NP ?= 2
CFG ?= demo.yaml
DATA ?=
TESTS ?= tests
ARGS ?=
RUN := .venv/bin/python
SAMPLE := data/sample_faces

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12
train: setup $(if $(DATA),,sample) ## train and verify; DATA=FOLDER: on an InsightFace folder; NP, CFG, ARGS
	@$(RUN) -m launch.local -np $(NP) --cfg $(CFG) $(if $(DATA),'data.records=$(DATA)' 'eval.sets=[$(if $(wildcard $(DATA)/*.bin),$(DATA))]' 'run.name=$(notdir $(patsubst %/,%,$(DATA)))') $(ARGS)
test: setup-dev ## run the tests; TESTS=tests/pipeline for a part
	@$(RUN) -m pytest -q $(TESTS)
lint: setup-dev ## ruff and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
format: setup-dev ## let ruff rewrite the sources
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .
sample: setup ## render the sample faces
	@$(RUN) tools/make_sample_faces.py $(SAMPLE)
setup: ## make .venv
	@bash launch/environment/setup.sh "$(PYTHON)"
setup-dev: ## make .venv with what tests and lint need
	@bash launch/environment/setup.sh "$(PYTHON)" dev
clean: ## remove .venv and the sample (runs stay)
	@rm -rf .venv $(SAMPLE)
.PHONY: help train test lint format sample setup setup-dev clean
.DEFAULT_GOAL := help
