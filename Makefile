# Two commands do all the set-up on a machine with Python >= 3.11 and make:
#   make demo   install into .venv and compare the shipped example models
#   make test   install the development tools too, then make check
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
E := examples

.PHONY: demo test check format docs pages schema screenshots tables benchmark zoo bench bench-smoke mergekit examples clean

demo: $(VENV)/.core
	$(BIN)/kinprint compare $E/child $E/base --control $E/twin
	$(BIN)/kinprint compare $E/twin $E/base
	$(BIN)/kinprint compare $E/laundered $E/base --control $E/twin

test: $(VENV)/.dev
	$(MAKE) check

# All that CI runs, and all that a person needs to run; it builds the site, and the smoke zoo and benchmarks it on the way.
check:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site, in build/site: a warning, which a dead link or anchor is too, is an error.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What pages show of the program: help, the first answer, numbers and pictures of methods and tests. Three minutes.
pages: $(VENV)/.dev
	$(BIN)/python docs/reference/make_commands.py
	$(BIN)/python docs/reference/make_start.py
	$(BIN)/python docs/reference/make_evidence.py
	$(BIN)/python docs/reference/make_methods.py

schema: $(VENV)/.core
	$(BIN)/python docs/reference/make_schema.py

# Needs a Chromium that is installed.
screenshots: $(VENV)/.dev
	$(BIN)/python docs/reference/make_screenshots.py

tables: $(VENV)/.core
	$(BIN)/python docs/reference/make_zoo.py

# Trains and derives a suite, and runs its benchmark: make bench SUITE=tiny JOBS=2. Both go on where they stopped.
SUITE ?= smoke
JOBS ?= 1

zoo: $(VENV)/.dev
	$(BIN)/kinprint zoo build $(SUITE) --output build/zoo/$(SUITE) --jobs $(JOBS)

bench: zoo
	$(BIN)/kinprint bench $(SUITE) --zoo build/zoo/$(SUITE) --output build/bench/$(SUITE) --jobs $(JOBS)

bench-smoke:
	$(MAKE) bench SUITE=smoke

# mergekit is LGPL and large: an environment of its own, outside CI, where it is called as a command.
mergekit:
	$(PYTHON) -m venv $(VENV)/mergekit
	$(VENV)/mergekit/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(VENV)/mergekit/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group mergekit
	$(VENV)/mergekit/bin/python benchmarks/mergekit/check.py

benchmark: $(VENV)/.dev
	$(BIN)/python benchmarks/spectra.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/verdict.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/cost.py --without smollm2 --without behave

# Trains the four example models again (about ten minutes on two cores).
examples: $(VENV)/.dev
	$(BIN)/kinprint zoo build examples --output $E

$(VENV)/.pip: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kinprint needs Python 3.11 or newer: set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.core: $(VENV)/.pip pyproject.toml
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) --editable '.[torch,bench]' --group dev
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
