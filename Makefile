# Chimata: `make run` starts the city, `make help` lists the rest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup run test check bench mutations lock new-sector screenshot clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
# pip follows the machine's own settings everywhere; uv, ten times faster, does most of the work.
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
# Which interpreter makes .venv: the first of these that is 3.11 or newer. `make setup BASE_PYTHON=...`
BASE_PYTHON ?= python3.13 python3.12 python3.11 python3
# Most tests wait for servers and timers more than they compute.
TEST_PROCESSES ?= 3
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header $(if $(UPGRADE),--upgrade)

# What is installed is newer than what it was made from: then there is nothing to do.
INSTALLED := $(VENV)/installed.stamp
LINKED := $(VENV)/linked.stamp
WEB := $(VENV)/web.stamp
WEB_SOURCES := deploy/web.py $(shell find api/web api/basemap -type f -not -path '*/node_modules/*' \
  -not -path '*/dist/*' -not -name '*.pyc')

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1mmake %-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(LINKED) $(WEB) ## Install the locked packages into .venv and build the pages

run: setup ## Start the demo city on this machine (Ctrl-C ends it)
	@$(BIN)/chimata up --demo

test: setup ## Run every test, in TEST_PROCESSES processes
	@$(PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile

check: setup ## Check format, lint, types and import contracts
	@$(BIN)/ruff format --check --quiet . || { echo "make check: run '$(BIN)/ruff format .'"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: setup ## Measure; ONLY=name for one of them, results in benchmarks/results
	@$(PYTHON) -m benchmarks $(ONLY)

mutations: setup ## Break each rule of consent on purpose: its test must notice
	@$(PYTHON) -m tests.mutations $(ONLY)

new-sector: setup ## Make domains/NAME from the template: make new-sector NAME=water
	@$(PYTHON) -m deploy.new_sector "$(NAME)"

lock: $(INSTALLED) ## Write the lock files again; UPGRADE=1 takes newer versions
	@$(LOCK) pyproject.toml -o requirements.lock
	@$(LOCK) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

screenshot: setup ## Make docs/screenshot.png again from the running demo
	@CHIMATA_SCREENSHOT=1 $(PYTHON) -m pytest -q -k screenshot tests/web

clean: ## Remove .venv, the built pages and caches; data/ stays
	@rm -rf $(VENV) api/web/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON):
	@for candidate in $(BASE_PYTHON); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "==> .venv with $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; \
	echo "Chimata needs Python 3.11 or newer with its venv module (Debian: apt install python3-venv)." >&2; \
	exit 1

$(INSTALLED): requirements-dev.lock | $(PYTHON)
	@echo "==> installing the locked packages"
	@awk '/^uv==/ { wanted = 1 } wanted { print } wanted && !/\\$$/ { exit }' $< > $(VENV)/uv.lock
	@$(PIP) --require-hashes -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --python $(PYTHON) --require-hashes -r $< || $(PIP) --require-hashes -r $<
	@touch $@

$(LINKED): pyproject.toml $(INSTALLED)
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(WEB): $(WEB_SOURCES) $(LINKED)
	@echo "==> building the pages"
	@$(PYTHON) -m deploy.web
	@touch $@
