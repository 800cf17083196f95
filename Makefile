# Every target installs what it needs, and no more, into a virtual environment in .venv; it asks no questions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8080
# More options of pytest for both halves of `make test`, as in: make test PYTEST="-k interruption"
PYTEST ?=

# Two targets install into one environment, and the real-time tests need a quiet machine: never two at once.
.NOTPARALLEL:
.PHONY: demo serve test test-fast test-realtime test-long lint types bench check clean

demo: $(VENV)/.has-demo
	$(BIN)/voxline demo

serve: $(VENV)/.has-serve
	$(BIN)/voxline run examples/rover.py --transport webrtc --port $(PORT)

# In parallel, then the tests that need real time (sound, browsers, networks), one by one on a machine that is then quiet.
test: test-fast test-realtime

test-fast: $(VENV)/.has-test
	$(BIN)/python -m pytest -n logical --dist worksteal -m "not realtime" $(PYTEST)

test-realtime: $(VENV)/.has-test
	$(BIN)/python -m pytest -m realtime $(PYTEST)

# The same tests, with all of the random examples.
test-long: export VOXLINE_LONG = 1
test-long: test

lint: $(VENV)/.has-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.has-types build/types/voxline
	$(BIN)/basedpyright --pythonpath $(BIN)/python

bench: $(VENV)/.has-test
	$(BIN)/python benchmarks/run.py

check: lint types test

# The extras of pyproject.toml that each target needs.
EXTRAS_demo := demo
EXTRAS_serve := speech,webrtc
EXTRAS_test := dev
EXTRAS_lint := lint
EXTRAS_types := dev,lint

$(VENV)/.has-%: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS_$*)]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "voxline needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Static tools cannot see the import hook that maps `voxline` to this folder; all of them can follow a link.
build/types/voxline:
	@mkdir -p build/types
	@ln -sfn ../.. $@

clean:
	rm -rf build dist out .pytest_cache .ruff_cache *.egg-info
