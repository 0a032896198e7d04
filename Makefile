# `make run` distils the bundled sample, `make test` runs the tests, `make check` lints and type-checks.
# `make faults` lets every write, flush and rename of the store fail, and every other thing happen that it must survive.
# The first of them creates .venv; nothing outside this folder is touched.

PYTHON ?= python3
BIN := .venv/bin
# What is imported is compiled once: the tests start hundreds of processes, and nothing is compiled at the installation.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test faults check clean

run: .venv/.ready
	$(BIN)/ckd precompute
	$(BIN)/ckd distill

test: .venv/.ready
	$(BIN)/pytest --numprocesses 3 --dist loadfile

faults: .venv/.ready
	$(BIN)/pytest -m faults --faults=long --numprocesses 2 --dist loadfile

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/ns/ckd
	for folder in pipeline stages storage; do ln -sfn "$(CURDIR)/$$folder" build/ns/ckd/$$folder; done
	MYPYPATH=build/ns $(BIN)/mypy --num-workers 2 -p ckd

.venv/.ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ckd needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[sample,dev]'
	touch $@

clean:
	rm -rf .venv build store
