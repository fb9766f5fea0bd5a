# `make install` makes the environment, `make quickstart` runs the main job, `make test` runs every check.
PYTHON ?= python3
BIN := .venv/bin
# OpenMP threads that spin while they wait take the cores from everything else.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install quickstart test lint clean

install: .venv/.done

.venv/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info[:2] in ((3, 11), (3, 12)) else "Sotto needs Python 3.11 or 3.12; say which one with: make install PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[data,dev]'
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

quickstart: install
	$(BIN)/python -m data_scripts.quickstart

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
