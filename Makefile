# Everything runs in .venv, made from the lock with the Python at hand.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test worlds slurm faults browser docs check lock clean

run: .venv/run  ## the default study
	$(BIN)/snakemake --cores all

test: .venv/test  ## the tests
	$(BIN)/python -m pytest

worlds: .venv/test  ## the default study on three generated worlds: are the planted truths found in each?
	$(BIN)/python -m pytest -m worlds

slurm: .venv/test  ## the smoke study on a Slurm that the tests start
	$(BIN)/python -m pytest -m slurm -rs

faults: .venv/test  ## faults of a hub and of a tuning; a study without a network; a study that grows
	$(BIN)/python -m pytest -m faults -rs

browser: .venv/test  ## the report of the published study in headless Chromium
	$(BIN)/python -m pytest -m browser -rs

docs: .venv/run  ## pages of docs/ whose facts have their home elsewhere
	$(BIN)/python -m workflow.documenting

check: .venv/test  ## lint and format
	$(BIN)/snakemake --lint
	$(BIN)/snakefmt --check .
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/run: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	touch $@

.venv/test: .venv/run requirements-test.lock
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements-test.lock
	touch $@

# Test packages are resolved first, so that both locks agree; a build tag such as +cpu is the machine's own.
lock:  ## both locks anew, from the packages that pyproject.toml names
	rm -rf .venv .lock && $(PYTHON) -m venv .venv && $(PYTHON) -m venv .lock/run
	$(BIN)/python -m pip install --editable '.[test]'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > .lock/all
	.lock/run/bin/python -m pip install --constraint .lock/all --editable .
	.lock/run/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock
	(echo '-r requirements.lock'; grep -vxFf requirements.lock .lock/all) > requirements-test.lock
	rm -rf .lock .venv

clean:  ## remove the environment; results stay
	rm -rf .venv
