# Everything a newcomer needs: `make run` shows the main job, `make test` runs every check that CI runs.
# Both set themselves up in .venv; nothing is installed outside it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run test test-browser lint typecheck contracts unit sim-health net bench bench-search bench-routing bench-ledger bench-short sim sim-short sim-ledger lock generate install clean

help: ## what can be made here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("loopd needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

setup: $(STAMP) ## the virtual environment, with exactly what the lock names

run: setup ## three cities federate: the demonstration
	@$(BIN)/loopd demo

test: setup lint typecheck contracts unit ## every check that CI runs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

test-browser: setup ## look at /docs in a headless Chromium, which must be installed
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ echo "make test-browser: no browser here; on Debian: apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pytest -o python_files='browse_*.py' tests/browser

HOURS  ?= 1e4
SHARDS ?= 2
sim-health: setup ## failure detection at length, under a virtual clock: make sim-health HOURS=1e5 SHARDS=2
	$(BIN)/python -m tests.health_simulation --hours $(HOURS) --failures 100 --shards $(SHARDS)

net: setup ## 30 real nodes on this machine, as a chain and as a mesh, and what happens when some are killed (5 minutes)
	$(BIN)/python -m tests.real_network

bench: setup ## measure the node beside its bare parts, into docs/performance.md (a minute and a half)
	$(BIN)/python -m bench --write docs/performance.md

bench-search: setup ## searches among 10,000 to 1,000,000 materials, into docs/performance.md (ten minutes)
	$(BIN)/python -m bench.search --write docs/performance.md

bench-routing: setup ## routes, plans and demand, into docs/performance.md (a minute)
	$(BIN)/python -m bench.routing --write docs/performance.md

bench-ledger: setup ## payments as the books grow to a million entries, into docs/performance.md (ten minutes)
	$(BIN)/python -m bench.ledger --write docs/performance.md

bench-short: setup ## the same, roughly, in half a minute
	$(BIN)/python -m bench --seconds 1
	$(BIN)/python -m bench.search --searches 50 --rows 10000
	$(BIN)/python -m bench.routing --rounds 20

SEEDS ?= 2000
sim: setup ## the engine in simulated federations: SEEDS seeds of each kind, failing ones are kept (long)
	$(BIN)/python -m loopd.sim seeds --count $(SEEDS) --keep tests/sim/seeds.txt

sim-short: setup ## the same with 60 seeds of each kind, in less than a minute
	$(BIN)/python -m loopd.sim seeds --count 60

OPERATIONS ?= 1000000
FIRST ?= 0
sim-ledger: setup ## three ledgers against their models, a million operations (ten minutes): make sim-ledger FIRST=100 goes on there
	$(BIN)/python -m tests.ledger_sim --operations $(OPERATIONS) --first $(FIRST)

lock: ## resolve pyproject's lower bounds anew into requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--all-extras --output-file requirements.lock pyproject.toml

generate: setup ## rewrite every file that is generated from the code
	$(BIN)/python -m scripts.generate

PREFIX ?= /opt/loopd
install: ## as a system service with its own user (needs root): make install PREFIX=/opt/loopd
	@sh scripts/install.sh $(PREFIX) $(PYTHON)

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
