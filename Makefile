# Two commands on a machine with Python 3.11: `make demo` and `make test`. Everything lives in .venv.
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the small CPU build of torch where PyPI would send the CUDA one.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
TORCH_INDEX ?=
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

NATIVE := hatch_build.py relaxations/kernels/build.py $(wildcard relaxations/kernels/native/*.[ch]pp)

.PHONY: demo test lint bench docs native clean help

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	@echo "installing verif (once; torch is large)"
	@$(PIP) $(INDEX) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	@echo "installing verif with its tests' tools (once; torch is large)"
	@$(PIP) $(INDEX) -c constraints.txt -e '.[dev]'
	@$(PIP) --no-deps auto_LiRPA==0.3 || echo "auto_LiRPA is absent: the cross-checks against it will be skipped"
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run  ## verify a network of cases/ and print the verdict
	@$(BIN)/verify cases/collision/model.onnx cases/collision/head_on_is_never_clear.vnnlib

test: lint  ## lint, types, layers, then every test, on every core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev  ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev  ## time the bounds on fixed networks
	@$(BIN)/python benchmarks/bounds.py

docs: $(VENV)/.run  ## write the generated pages of docs/ again
	@$(BIN)/python docs/generate.py

native:  ## build the native kernels in place again (the installation has done it once)
	@$(PYTHON) relaxations/kernels/build.py

clean:  ## remove the environment and every cache
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
