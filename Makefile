PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check wheel clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: $(STAMP)  ## audit a federation of real faces and write demo-run/report.html
	$(BIN)/fedaudit demo --output demo-run

test: check  ## lint, types, the test suite with branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(STAMP)  ## lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(STAMP)  ## build the wheel and test what it installs
	$(BIN)/python tests/try_wheel.py

clean:
	rm -rf $(VENV) build dist *.egg-info demo-run
