# Every target sets up the environment it needs; `make help` lists them.
PYTHON ?= python3
PYTHON311 ?= python3.11
BIN := .venv/bin

.PHONY: help demo demo-fit test lint bench test-blender clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# What a stamp is named after are the extras it has installed; pip leaves alone what is already there.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[export,vizdoom]'
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet -e '.[export,viewer,vizdoom,colmap,dev]'
	@touch $@

.venv-blender/.ready:
	$(PYTHON311) -m venv .venv-blender
	.venv-blender/bin/python -m pip install --quiet 'bpy==5.0.1'
	@touch $@

demo: demo-fit  ## everything the library can show, into out/demo/

test: .venv/.test  ## the whole suite on the CPU
	$(BIN)/python -m pytest

lint: .venv/.test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.test  ## our kernels beside their torch twins
	@set -e; for script in examples/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean:  ## remove environments, caches and out/
	rm -rf .venv .venv-blender out .pytest_cache .ruff_cache .hypothesis
