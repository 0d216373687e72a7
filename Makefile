# make quickstart   install and run a whole small study, ending in a report
# make test         install and run all tests
# make quick        tests of single parts, less the dear ones
# make check        format, lint, types, tests
# make docs         build the site into build/site, with the report of every results page
# make studies      check the bundles in gallery/: hashes, licence, every number of the report
# make bench        measure speed, about half an hour; prints tables, asserts nothing
# make fuzz         feed damaged files to every reader; INPUTS=20000 for a long run
# make locked       install all packages but torch by their hashes
# make audit        ask pip-audit about every pinned package

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

INPUTS ?= 2000

.PHONY: quickstart test quick check lint docs studies bench fuzz locked audit

quickstart: .venv/installed
	$(BIN)/clipdrift run studies/quickstart.yaml --out runs/quickstart

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# In the order of the folders: by number of tests, long files of few tests would come last, alone.
test: .venv/installed-dev
	sh tools/ensure_chromium.sh $(BIN)/python
	sh tools/ensure_slurm.sh
	sh tools/ensure_open_clip.sh $(BIN)/python
	$(PYTEST) --no-loadscope-reorder

quick: .venv/installed-dev
	$(PYTEST) -m "not slow" tests/unit tests/reference

check: lint test

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Notebooks run and reports are made only where they changed. Warnings and dead links are errors.
STUDIES := $(wildcard docs/results/*/records.tar.xz gallery/*.tar.xz)

docs: .venv/installed-docs build/site-extra/gallery/index.html
	$(BIN)/python tools/write_reference.py site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs build/site

build/site-extra/gallery/index.html: $(STUDIES) $(wildcard src/clipdrift/report/*) | .venv/installed-docs
	$(BIN)/clipdrift gallery $(STUDIES) --out $(@D)

studies: .venv/installed
	for file in $(wildcard gallery/*.tar.xz); do \
		rm -rf build/studied && $(BIN)/clipdrift import $$file --out build/studied && \
		! grep '"licence": null' build/studied/bundle.json && \
		$(BIN)/clipdrift report build/studied && $(BIN)/clipdrift audit build/studied || exit 1; \
	done

# What presets cost takes as long again: benchmarks/preset_cost.py.
BENCHMARKS := $(filter-out %/preset_cost.py,$(sort $(wildcard benchmarks/*.py)))

bench: .venv/installed-dev
	for script in $(BENCHMARKS); do echo "# $$script"; $(BIN)/python $$script || exit 1; done

fuzz: .venv/installed-dev
	$(PIP) --editable '.[fuzz]'
	$(BIN)/python tools/run_fuzz.py --inputs $(INPUTS) --jobs 2

# torch first, from the index in use: its build has no hash here.
locked:
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(BIN)/python -m pip install --require-hashes --no-deps --requirement requirements.lock
	$(PIP) --no-deps --editable .

# In an environment of its own: what is audited is the pins, and pip-audit is none of them.
audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.venv/audit/bin/python tools/audit_packages.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev,ray,slurm]'
	touch .venv/installed $@

.venv/installed-docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[docs]'
	touch .venv/installed $@
