# The commands of this project. Everything is set up by the first one that needs it.
PYTHON ?= python3
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
PACKAGES := vm_health vm_alerts vm_agent vm_watchdog devcloud

.DEFAULT_GOAL := help
.PHONY: help setup run demo test unit properties explore component e2e check format docs bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## install what is missing into this folder (.venv, .tools)
	@$(PYTHON) devcloud/install.py

run: setup ## a local Azure with three VMs under the watchdog, until Ctrl-C
	@exec $(PY) -m devcloud run $(ARGS)

demo: setup ## kill a service and watch it come back; ends by itself (ARGS="--fast 5" is quicker)
	@exec $(PY) -m devcloud demo $(ARGS)

test: engine check unit properties component e2e ## everything

.PHONY: engine
engine:
	@$(PYTHON) devcloud/install.py --engine

unit: setup ## rules and decisions, without I/O
	$(PYTEST) tests/unit $(ARGS)

properties: setup ## the watchdog's promises over 10,000 random stories of fleets
	$(PYTEST) tests/properties $(ARGS)

explore: setup ## other random stories than those of make test, as many as PROPERTY_RUNS says
	PROPERTY_SEED=$${PROPERTY_SEED:-$$(date +%s)} $(PYTEST) tests/properties $(ARGS)

component: setup ## one part each against the real thing
	$(PYTEST) tests/component $(ARGS)

e2e: setup ## agent, function app and local Azure together
	$(PYTEST) tests/e2e $(ARGS)

check: setup ## style, types and layers
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo 2>/dev/null || .venv/bin/lint-imports

format: setup ## let ruff format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: setup ## write the files that come from the code (.env.example, docs/openapi.json)
	$(PY) docs/generate.py

bench: setup ## measure the figures that the documents state
	$(PY) -m benchmarks

clean: ## remove what setup has installed
	rm -rf .venv .venv313 .tools .devcloud
