# Each target sets the environment up by itself: .venv, uv inside it, the pinned dependencies, Regente.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
ARGS ?=
# where it is set, each process compiles torch anew, which takes ten seconds
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test lint types quick variants matrix bench ui pins clean help

train: .venv/ready ## train the default experiment; ARGS="mnist_cnn optimizer.lr=3e-3" for another
	@$(BIN)/regente train $(ARGS)

test: lint types .venv/extras ## lint, types and the tests: what CI runs
	$(BIN)/python -m pytest -m "browser or alone" # one by one: they need both cores, or look at a browser in real time
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not browser and not alone and not matrix and not variant"

quick: .venv/extras ## what is fast and needs no run of the program, and a smoke run of each capability
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "smoke or not (program or slow or browser or alone or matrix or variant)"

variants: .venv/extras ## the long cases that make test leaves out, each a variant of one in it (5 minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m variant

matrix: .venv/extras ## kinds of own parts through each command: a table of what works (15 minutes)
	rm -rf build/matrix
	-$(BIN)/python -m pytest -n 2 --dist worksteal -m matrix
	$(BIN)/python -m tests.matrix.table

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: .venv/extras
	$(BIN)/mypy

# without kills, command_kills, search, sweep_kills, everything and digits_transfer, which take long: run those by hand
BENCH := startup overhead windows pipeline augment lstm tracking saving ddp sweep export
bench: .venv/extras ## the side-by-side programs; DATA=FOLDER (MNIST/raw and photos in clothing/) runs those on real data too
	set -e; for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py; done
	$(if $(DATA),$(BIN)/python benchmarks/cnn.py --root $(DATA))
	$(if $(DATA),$(BIN)/python benchmarks/memory.py --root $(DATA))
	$(if $(DATA),$(BIN)/python benchmarks/transfer.py --root $(DATA)/clothing)

ui: .venv/ready ## MLflow's UI on this folder's runs
	@$(BIN)/regente ui

COMPILE = $(UV) pip compile pyproject.toml --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --no-header --upgrade --quiet --extra dev

pins: .venv/uv ## compile requirements.txt and requirements-extras.txt anew from pyproject.toml
	$(COMPILE) --output-file requirements.txt
	$(COMPILE) --extra all --constraint requirements.txt --output-file requirements-extras.txt

clean: ## remove .venv and caches; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build src/*.egg-info

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

.venv/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Regente needs Python 3.11 to 3.13; name one: make PYTHON=python3.12"; exit 3; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@touch $@

.venv/ready: .venv/uv requirements.txt pyproject.toml
	$(UV) pip install --quiet --require-hashes --requirement requirements.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Apart, since a run starts slower where they are: torchmetrics imports transformers wherever it finds it
.venv/extras: .venv/ready requirements-extras.txt
	$(UV) pip install --quiet --require-hashes --requirement requirements-extras.txt
	@touch $@
