# Two commands do everything: `make demo` and `make test`. Both set the project up first.

# The first Python that is new enough; or say which: make demo PYTHON=python3.12
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests start some hundred processes: without compiled modules, each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-all coverage check types lint rooms weaknesses docs wheel clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*##/\1/p' Makefile | while read -r name text; do \
	  printf '  make %-8s  %s\n' "$$name" "$$text"; done

demo: $(STAMP)  ## audit two federations: demo-run/report.html, demo-run-color/report.html
	$(BIN)/fedaudit demo --output demo-run

PYTEST := $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

# Tensors of some megabytes come and go all the time: with glibc, each would go back to the system
# and be asked for anew, page by page.
test test-all coverage: export MALLOC_MMAP_THRESHOLD_ := 268435456
test test-all coverage: export MALLOC_TRIM_THRESHOLD_ := 536870912

test: check  ## check, then run the tests but the slow ones
	$(PYTEST) -m "not slow"

test-all: check  ## check, then run all tests, as CI does
	$(PYTEST)

coverage: check  ## the same with branch coverage, which takes a third longer
	$(PYTEST) --cov --cov-report=term

check: $(STAMP)  ## lint, types, the order of the rooms, and known weaknesses
	@$(MAKE) --no-print-directory -j2 types lint rooms weaknesses

types:
	$(BIN)/mypy

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

rooms:
	$(BIN)/lint-imports

weaknesses:
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml fedaudit attacks defenses reports

docs: $(STAMP)  ## build the documentation into build/docs; nothing is fetched
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

wheel: $(STAMP)  ## build the wheel and test what it installs
	$(BIN)/python tests/try_wheel.py

clean:  ## remove the environment, builds and the demo's run
	rm -rf $(VENV) build dist *.egg-info demo-run demo-run-color

# Done anew only when pyproject.toml changes. Debian's python3 comes without ensurepip unless
# python3-venv is installed: then the machine's own pip fills the environment.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fedaudit needs Python 3.11 or later, and '$(or $(PYTHON),python3)' is not."; \
	  echo "Install one, and say where it is: make PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON): some minutes, once."
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || { \
	  echo "$(PYTHON) can neither make an environment with pip nor has a pip (22.3 or later) of its own."; \
	  echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(STAMP)
