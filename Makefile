# Everything runs in .venv, made from the lock with the Python at hand.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes
RESOLVE = .lock/bin/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	--no-annotate --no-header
LOWEST = transformers|datasets|peft|snakemake
UPGRADE ?=
# Processes that share the tests: one a core, four at most, since each holds up to 2.5 GB.
WORKERS ?= $(shell n=$$(env -u OMP_NUM_THREADS nproc); echo $$((n < 4 ? n : 4)))
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: help run quick test worlds slurm faults browser picture gpu wheels docs site check lock clean

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*##/\1:/p' $(MAKEFILE_LIST)

run: .venv/run  ## the default study
	$(BIN)/snakemake --cores all

quick: .venv/test  ## tests that take a moment each
	$(PYTEST) -m 'not slow and not worlds and not slurm and not faults and not browser'

test: .venv/test  ## the tests
	$(PYTEST)

worlds: .venv/test  ## the default study on three generated worlds: are the planted truths found in each?
	$(BIN)/python -m pytest -m worlds

slurm: .venv/test  ## the smoke study on a Slurm that the tests start
	$(BIN)/python -m pytest -m slurm -rs

faults: .venv/test  ## faults of a hub, kills, diverging runs; no network; a study that grows; benchmarks; the lowest versions supported
	$(BIN)/python -m pytest -m faults -rs

browser: .venv/test  ## the report of the published study in headless Chromium
	$(BIN)/python -m pytest -m browser -rs

picture: .venv/test  ## docs/answer.png, the first screen of results/report.html, for the README
	TUNECAST_PAGE=results/report.html TUNECAST_PICTURE=docs/answer.png \
		$(BIN)/python -m pytest -m browser tests/report/test_page_in_browser.py -k first_screen

# With .venv where there is one, else with the Python at hand: a GPU machine may have its own torch and no network.
gpu:  ## tests and benchmarks on a GPU, a table of them; ARGS="--minutes 9" ends in good order, the same command goes on
	$(if $(wildcard .venv/test),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(ARGS)

wheels:  ## wheels/ with what a GPU machine without a network lacks: `make gpu ARGS="--wheels wheels"`
	$(if $(wildcard .venv/test),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu.wheels $(ARGS)

docs: .venv/run  ## the pages of docs/ that are made from the code
	$(BIN)/python -m workflow.documenting

site: .venv/test  ## the documentation as a website, in site/; a broken link is an error
	$(BIN)/mkdocs build --strict  # with --quiet it would count no warning

check: .venv/test site  ## lint, format, types, the order of imports, and the documentation's links
	$(BIN)/snakemake --lint
	$(BIN)/snakefmt --check .
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# Without dependencies, since the locks hold all of them. PyPI's torch is the CUDA build, whose own packages `pip check` then misses.
.venv/run: requirements.lock requirements-cuda.lock
	$(PYTHON) -m venv .venv
	$(INSTALL) --requirement requirements.lock
	$(BIN)/python -m pip check || $(INSTALL) --requirement requirements-cuda.lock
	touch $@

.venv/test: .venv/run requirements-test.lock
	$(INSTALL) --requirement requirements-test.lock
	touch $@

# Pins that still fit pyproject.toml stay, their hashes are read anew; `make lock UPGRADE=--upgrade` takes the newest.
lock:  ## the locks, with the hash of every file, from the packages that pyproject.toml names
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install uv
	grep -ho '^[A-Za-z0-9][^ ]*==[^ ]*' requirements.lock requirements-cuda.lock requirements-test.lock > .lock/all
	$(RESOLVE) --extra test --output-file .lock/all $(UPGRADE) pyproject.toml
	cp .lock/all .lock/run
	$(RESOLVE) --constraints .lock/all --output-file .lock/run pyproject.toml
	cp .lock/run .lock/lowest
	grep -oE '"($(LOWEST))>=[0-9.]+' pyproject.toml | sed 's/"//; s/>=/==/' > .lock/bounds
	$(RESOLVE) --constraints .lock/bounds --output-file .lock/lowest pyproject.toml
	.lock/bin/python -m pip download --no-deps --dest .lock/torch "$$(grep -o '^torch==[^ ]*' .lock/run)"
	.lock/bin/python envs/lock.py .lock
	rm -rf .lock

clean:  ## remove the environment; results stay
	rm -rf .venv
