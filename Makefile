# `make run`: set up, then run the quickstart on a real model.  `make test`: set up, then pass every test.
# `make check`: lint, types, docs.  `make site`: the documents as pages, in build/site.  All of them need Python 3.11+,
# pip and a C++ compiler (llama.cpp is built once, about seven minutes; pip keeps the wheel).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := quickstart

.PHONY: run test check docs site clean

run: $(VENV)/.ready
	$(BIN)/selfloop run $(RUN)

# Everything: in parallel without models, then the real models one at a time, then the coverage of both.
test: $(VENV)/.ready
	$(BIN)/pytest -m 'not model' --cov --cov-report=
	$(BIN)/pytest -m model -n 0 --cov --cov-append --cov-report=
	$(BIN)/coverage report --format=total | sed 's/.*/coverage: & % of the lines/'

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/types && ln -sfn ../../plugins build/types/selfloop_plugins
	MYPYPATH=build/types $(BIN)/mypy -p selfloop -p selfloop_plugins
	MYPYPATH=build/types:benchmarks:tests:tests/browser $(BIN)/mypy --check-untyped-defs --follow-imports=silent benchmarks/*.py
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/.ready
	$(BIN)/python docs/generate.py

site: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'To read it, with search: $(BIN)/python -m http.server -d build/site'

# The examples' plugin is installed too: a test drives it as the other package that it is.
$(VENV)/.ready: pyproject.toml constraints.txt examples/selfloop-doubt/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selfloop needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps -e examples/selfloop-doubt
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
