# Every target does its own set-up: a virtual environment in .venv, with nothing asked.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

PORT ?= 8080

.PHONY: demo serve test lint types bench check clean

demo: $(STAMP)
	$(BIN)/voxline demo

serve: $(STAMP)
	$(BIN)/voxline run examples/rover.py --transport webrtc --port $(PORT)

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) build/types/voxline
	$(BIN)/basedpyright

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

check: lint types test

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "voxline needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Static tools cannot see the import hook that maps `voxline` to this folder; a link can be followed by all of them.
build/types/voxline:
	@mkdir -p build/types
	@ln -sfn ../.. $@

clean:
	rm -rf build dist out .pytest_cache .ruff_cache *.egg-info
