# Every verb makes the environment it needs; Python ≥ 3.11 and make are enough.
PYTHON ?= python3
BIN := .venv/bin
# By file, for the tests of one share what is slow to make.
AT_ONCE := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: env reproduce reproduce-all test test-all lint compiled format notebooks docs clean

env: .venv/made  ## the environment

reproduce: .venv/made  ## the main result on the testbed: reward curves, controls, a page
	$(BIN)/python -m probing.reproduce

reproduce-all: .venv/made  ## every store, table and figure of the testbed
	$(BIN)/python -m probing.reproduce --all

test: .venv/made  ## what CI runs
	$(MAKE) --jobs 2 lint compiled
	$(BIN)/python -m pytest $(AT_ONCE) -m "not slow"

test-all: lint  ## the slow tests too
	$(BIN)/python -m pytest $(AT_ONCE)

lint: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# While mypy has one core: in a new environment every library is compiled when it is first imported.
compiled: .venv/made
	@$(BIN)/python -m pytest --collect-only --quiet >/dev/null 2>&1 || true

format: .venv/made
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: .venv/made  ## run the notebooks anew, outputs kept
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb
	$(BIN)/python notebooks/tidy.py notebooks/*.ipynb

docs: .venv/made  ## the site, in build/site; a broken link is an error
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv build cache/*.zarr cache/*.parquet cache/results cache/main cache/encoded

.venv/made: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	# Without compiling every module of every library: what is imported is compiled then.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@
