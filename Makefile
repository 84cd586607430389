# make demo: the whole loop, from data to a report.   make test: the tests.   make setup: just the environment in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slow lint types layers check clean

setup: .venv/ready

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		(echo "wmbench needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Try: make setup PYTHON=python3.12" && exit 1)
	$(PYTHON) -m venv .venv
	# What is imported is compiled on first use: compiling all 6 GB here would take a minute more.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	# The longest file first, so that no process is left alone with it at the end.
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder tests/test_commands.py tests/test_first_steps.py tests

test-slow: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

layers: setup
	$(BIN)/lint-imports

check: lint types layers test

clean:
	rm -rf .venv data/demo.h5* data/demo.manifest.json checkpoints/demo plan_outputs/demo
