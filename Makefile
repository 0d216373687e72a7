# make quickstart   install and run a whole small study, ending in a report
# make test         install and run all tests
# make check        format, lint, types, tests
# make bench        measure speed; prints tables, asserts nothing

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test check lint bench

quickstart: .venv/installed
	$(BIN)/clipdrift run studies/quickstart.yaml --out runs/quickstart

test: .venv/installed-dev
	sh tools/ensure_chromium.sh $(BIN)/python
	sh tools/ensure_slurm.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: lint test

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-dev
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev,ray,slurm]'
	touch $@
