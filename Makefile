# One environment in .venv, one lock. `make` alone prints the targets.
PYTHON    ?= python3.11
INSTALLER ?= uv
TORCH     ?= 2.13.0
UV        := 0.13.8
BIN       := .venv/bin
STAMP     := .venv/.installed-$(INSTALLER)
WORKERS   ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow test-all lint check lock clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## install everything into .venv (INSTALLER=pip: without uv)

# torch goes in first and apart: a plain resolve would take the CUDA build. A torch that the interpreter already has, a CUDA build
# for example, is seen through --system-site-packages and left alone.
.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the path; install Python 3.11 or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $$($(PYTHON) -c 'import importlib.util as u; print("--system-site-packages" if u.find_spec("torch") else "")') .venv

$(STAMP): requirements.lock pyproject.toml Makefile | .venv/bin/python
	$(BIN)/python -c 'import importlib.metadata as m; print("torch", m.version("torch"), "is there already")' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH)
ifeq ($(INSTALLER),uv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --require-hashes --compile-bytecode -r requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $@

demo: $(STAMP)  ## the whole chain on a phantom cohort, a few minutes
	$(BIN)/bedside demo

test: $(STAMP)  ## the test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q -m "not slow"

test-slow: $(STAMP)  ## the tests that take minutes, and no others
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q -m slow

test-all: $(STAMP)  ## the test suite with the tests that take minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q

lint: $(STAMP)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## lint and test: what must pass before a commit

lock: $(STAMP)  ## resolve the dependencies of pyproject.toml anew
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --no-header --no-emit-package torch \
	  --override overrides.txt --extra dev pyproject.toml -o requirements.lock

clean:  ## remove .venv, caches and the demo's folder
	rm -rf .venv build dist demo demo-remote src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
