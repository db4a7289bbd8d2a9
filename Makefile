# Everything runs in .venv, which the targets make and keep up to date by themselves. `make` alone lists them.
# Paths are relative and nothing depends on a terminal, so a clone in a folder with spaces, or in CI, works as well.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

# Pins that are known to work together; `make CONSTRAINTS= test` takes the newest of everything instead.
CONSTRAINTS ?= constraints.txt
# Two workers on two cores; `make test PYTEST_ARGS='-x tests/exact'` for anything else.
PYTEST_ARGS ?= -n 2
NOTEBOOKS ?= notebooks/*.ipynb
# Seconds one notebook cell may take.
CELL_TIMEOUT ?= 1800
# `make bench BENCH_ARGS=--short` for under five minutes of it; `make bench PEERS=no` without PyTorch and its libraries.
BENCH_ARGS ?=
PEERS ?= yes

PY := .venv/bin/python
IN.runtime := .venv
IN.dev := .venv
IN.peers := .venv/peers

.PHONY: help env demo test test-all lint types notebooks bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

env: .venv/.dev ## make .venv with everything: the zoo, tests, lint, notebooks

demo: .venv/.runtime ## fit a network to the diabetes data by NUTS, write a report and plots to ./demo_output/
	$(PY) -m bnn_zoo demo

test: .venv/.dev ## the tests that are not marked slow
	$(PY) -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: .venv/.dev ## all the tests
	$(PY) -m pytest $(PYTEST_ARGS)

lint: .venv/.dev ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: .venv/.dev ## mypy
	$(PY) -m mypy

notebooks: .venv/.dev ## run every notebook from nothing at full size; fails on any cell error
	@set -e; unset ZOO_QUICK; out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	export JUPYTER_PREFER_ENV_PATH=1 PYDEVD_DISABLE_FILE_VALIDATION=1; \
	for notebook in $(NOTEBOOKS); do \
	    [ -f "$$notebook" ] || { echo "no notebook matches $(NOTEBOOKS)" >&2; exit 1; }; \
	    start=$$(date +%s); \
	    $(PY) -m nbconvert --log-level=WARN --to notebook --execute --ExecutePreprocessor.kernel_name=python3 \
	        --ExecutePreprocessor.timeout=$(CELL_TIMEOUT) --output-dir "$$out" "$$notebook" </dev/null; \
	    echo "$$notebook ran in $$(($$(date +%s) - start)) s"; \
	done

BENCH := $(if $(filter no,$(PEERS)),runtime,peers)
bench: .venv/.$(BENCH) ## time the methods against their floors and peers, write ./bench_output/
	$(IN.$(BENCH))/bin/python -m tests.benchmarks $(BENCH_ARGS)

clean: ## remove .venv, outputs and caches
	rm -rf .venv demo_output bench_output build dist .mypy_cache .ruff_cache .pytest_cache notebooks/.ipynb_checkpoints
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that works is kept, whoever made it; any other (half made, too old, its Python gone) is made anew.
works := $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
$(shell $(PY) -c '' >/dev/null 2>&1 || rm -f .venv/.made .venv/.runtime .venv/.dev .venv/.peers)

.venv/.made:
	@if ! $(works); then \
	    base=$$(sh .ci/find-python) && echo "making .venv with $$base" && "$$base" -m venv --clear .venv; \
	fi
	@touch $@

# uv where there is one; pip otherwise, or when uv fails (it does not read pip's settings). Byte code is compiled
# afterwards, on all cores and without the libraries' own tests: half the time pip takes, and no slow first import.
WHAT.runtime := -e .
WHAT.dev := -e '.[test,dev]'
WHAT.peers := -e . -r tests/benchmarks/requirements.txt
define install
@set -e; python=$(IN$(suffix $@))/bin/python; \
if command -v uv >/dev/null 2>&1 && uv pip install --quiet --python $$python $(CONSTRAINTS:%=-c %) $(WHAT$(suffix $@)) </dev/null; then :; \
else $$python -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off --no-compile \
    $(CONSTRAINTS:%=-c %) $(WHAT$(suffix $@)); fi; \
$$python -m compileall -q -j 0 -x '/tests/' "$$($$python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null 2>&1 || true
@touch $@
endef

.venv/.runtime: pyproject.toml $(CONSTRAINTS) | .venv/.made
	@echo "installing what the zoo needs (about a minute) ..."
	$(install)

.venv/.dev: pyproject.toml $(CONSTRAINTS) | .venv/.runtime
	@echo "installing what its tests, lint and notebooks need ..."
	$(install)

# What the benchmarks compare with stays out of .venv: nothing in the zoo or its tests may lean on it.
.venv/.peers: pyproject.toml $(CONSTRAINTS) tests/benchmarks/requirements.txt | .venv/.made
	@echo "installing what the benchmarks compare with, PyTorch above all (minutes) ..."
	@$(PY) -m venv --clear .venv/peers
	$(install)
