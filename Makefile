# Every target sets up the environment it needs; `make help` lists them.
PYTHON ?= python3
PYTHON311 ?= python3.11
BIN := .venv/bin
DEMO := out/demo

.PHONY: help demo demo-fit demo-encode test lint bench test-blender campaign clean
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # the suite starts many processes

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# A stamp says for what the environment is ready. pip leaves alone what is there, and Python compiles what it imports.
.venv/bin/python:
	@echo "Setting up .venv: torch is large, this takes a minute or two."
	$(PYTHON) -m venv .venv || { rm -rf .venv; false; }

.venv/.demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -e '.[export,vizdoom]'
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -e '.[export,vizdoom,dev]'
	@touch $@

# bpy 5.0 exists for Python 3.11 only, and is GPL: it lives in an environment of its own.
.venv-blender/.ready:
	$(PYTHON311) -m venv .venv-blender
	.venv-blender/bin/python -m pip install --quiet 'bpy==5.0.1'
	@touch $@

demo: .venv/.demo  ## sample three worlds, sharpen and export them, into out/demo/
	$(BIN)/nfldm3d generate --scenes 3 --seed 0 --refine --out $(DEMO)
	@echo "Look at $(DEMO)/scene_000/views.png and turntable.mp4; open scene.glb in Blender."

demo-fit: .venv/.demo  ## record a small ViZDoom capture, fit it, render and export it
	$(BIN)/nfldm3d capture vizdoom --out $(DEMO)/capture --map MAP01 --views 60 --size 128 --seed 0 --overwrite
	$(BIN)/nfldm3d fit $(DEMO)/capture --out $(DEMO)/scene.nfld --holdout-every 10 --time-budget 90 \
	    --voxels 8000000 --surrounding-voxels 2000000 --overwrite
	$(BIN)/nfldm3d render $(DEMO)/scene.nfld --path panorama --out $(DEMO) --views 90 --width 320 --height 240
	mv $(DEMO)/panorama.mp4 $(DEMO)/turntable.mp4
	$(BIN)/nfldm3d export $(DEMO)/scene.nfld --mesh $(DEMO)/scene.glb --points $(DEMO)/points.ply
	@echo "Look at $(DEMO)/scene.contact.png and $(DEMO)/turntable.mp4; open $(DEMO)/scene.glb in Blender."

demo-encode: .venv/.demo  ## encode a few pictures of a map that the networks never saw, render and export the scene
	$(BIN)/nfldm3d capture vizdoom --out $(DEMO)/scenes --scenes 4 --map MAP10,MAP20,E1M5,E2M5 --seed 3
	$(BIN)/nfldm3d evaluate autoencoders --weights vizdoom --data $(DEMO)/scenes --page $(DEMO)/encoded.png
	$(BIN)/nfldm3d encode $(DEMO)/scenes --weights vizdoom --split test --out $(DEMO)/encoded.nfld
	$(BIN)/nfldm3d render $(DEMO)/encoded.nfld --path panorama --out $(DEMO)/encoded --views 60 --width 256 --height 192
	$(BIN)/nfldm3d export $(DEMO)/encoded.nfld --mesh $(DEMO)/encoded.glb
	@echo "Look at $(DEMO)/encoded.png: photographs, what the scene shows from there, and what is left after compression."

# Tests run side by side, one thread each: threads that wait for each other's cores take several times as long.
test: .venv/.test  ## the whole suite on the CPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

lint: .venv/.test  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright   # else it asks the network whether it is the newest

bench: .venv/.test  ## our kernels beside their torch twins
	@set -e; for script in examples/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

test-blender: .venv/.test .venv-blender/.ready  ## what we export, as Blender reads it
	$(BIN)/python tests/blender/write_exports.py out/blender
	.venv-blender/bin/python tests/blender/check_exports.py out/blender

SECONDS_OF_CAMPAIGN ?= 900

campaign: .venv/.test  ## changed files, kills, signals, full disks: what becomes of them, within 15 minutes
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaign --seconds $(SECONDS_OF_CAMPAIGN)

clean:  ## remove environments, caches and out/
	rm -rf .venv .venv-blender out .pytest_cache .ruff_cache .hypothesis
