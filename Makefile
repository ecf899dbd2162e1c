# Everything a newcomer needs. The first call sets up .venv; later ones reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: nightly test check docs chaos audit paper bench clean

nightly: $(READY)  ## a whole night on the simulated shop
	@$(BIN)/python -m rum_core.data.simulated --out build/shop
	@$(BIN)/python -m flows.nightly --config demo $(ARGS)

test: $(READY)     ## every test, and the checks of style, types and layers
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(READY)     ## docs/settings.md, from the settings tree
	@$(BIN)/python -m rum_core.docs

chaos: $(READY)    ## kills at random moments of a night, on one node, on two, and of the scheduler: an hour
	@$(BIN)/python -m tests.chaos.kill --out tests/benchmarks/results/chaos.md $(ARGS)

paper: $(READY)    ## every model tuned alike on the paper's log, and measured once: many hours; in parts by ARGS
	@$(BIN)/python -m tests.benchmarks.paper $(ARGS)

bench: $(READY)    ## speed beside rivals and limits: half an hour, alone on the machine
	@$(BIN)/python -m pip install --quiet --no-compile --constraint infra/constraints.txt --editable '.[bench]'
	@$(BIN)/python -m tests.benchmarks.bench $(ARGS)

audit: $(READY)    ## known vulnerabilities of the pinned dependencies; asks a public database
	@$(BIN)/pip-audit --requirement infra/constraints.txt --no-deps --disable-pip --strict

$(READY): pyproject.toml infra/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --constraint infra/constraints.txt --editable '.[test]'
	@touch $(READY)

clean:             ## remove what make made; never the store
	rm -rf $(VENV) build
