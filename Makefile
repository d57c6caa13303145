# emowatch from a checkout. `make` alone lists what there is.
#
#   PYTHON=python3.13    the interpreter that .venv is made with; any 3.11 to 3.14
#   ARGS="…"             options handed on to the command, as in: make chat ARGS="--help"
#
# pip reads its own settings. On Linux without a GPU, PyTorch's CPU builds save some gigabytes:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make chat

PYTHON ?= python3
ARGS ?=
DATA ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
DECLARED := pyproject.toml constraints.txt
COMPAT := .venv-compat
RIVALS := .venv-rivals
NEMO := .venv-nemo
# Runs tests on up to four cores, since each process loads torch. ARGS="-n 0" keeps to one process.
PYTEST := -m pytest -n logical --maxprocesses 4 --dist worksteal
# What mypy reads; what is not there is left out.
TYPED := $(wildcard emowatch tests benchmarks docs/*.py plugins/*/*.py)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help chat test test-compat test-nemo lint bench bench-rivals soak fuzz demo-model clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

chat: $(VENV)/ready  ## Talk to the demo model and watch its traces (plain text when piped)
	@$(BIN)/emowatch chat $(ARGS)

test: $(VENV)/ready-dev  ## Run the tests
	$(BIN)/python $(PYTEST) $(ARGS)

test-compat: $(COMPAT)/ready-dev  ## Run the tests on the oldest transformers that is supported
	$(COMPAT)/bin/python $(PYTEST) $(ARGS)

test-nemo: $(NEMO)/ready  ## Run the tests of plugins/emowatch-nemo, which wants an older huggingface_hub
	cd plugins/emowatch-nemo && ../../$(NEMO)/bin/python -m pytest $(ARGS)

lint: $(VENV)/ready-dev  ## Check style, types and the rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/ready-dev  ## Run every benchmark; the machine should be otherwise idle
	@set -e; for name in startup extraction replay fitting watching plugins doctor alarms; do \
	    echo "== $$name"; $(VENV)/bin/python -m benchmarks.$$name; \
	done

bench-rivals: $(VENV)/ready-dev $(RIVALS)/ready  ## Time reading along, beside other libraries too (hours; see ARGS="--help")
	$(BIN)/python -m benchmarks.overhead $(ARGS)

soak: $(VENV)/ready-dev  ## Run the tests that take many minutes
	$(BIN)/python -m pytest -m soak $(ARGS)

fuzz: $(VENV)/ready-dev  ## Run the tests that throw very many broken inputs
	$(BIN)/python -m pytest -m fuzz $(ARGS)

demo-model: $(VENV)/ready  ## Make the demo model anew from the data sets in DATA=… (hours)
	@[ -d "$(DATA)" ] || { echo "Name the folder that holds the data sets: make demo-model DATA=…" >&2; exit 2; }
	$(BIN)/python -m emowatch.demo.recipe --data "$(DATA)" $(ARGS)

clean:  ## Remove .venv, .venv-compat, .venv-rivals, .venv-nemo, builds and caches (never banks, traces or demo-work)
	rm -rf $(VENV) $(COMPAT) $(RIVALS) $(NEMO) dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find emowatch tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true


# Set-up. It talks on stderr only and leaves stdin alone, because both belong to what runs after
# it: `echo Hello | make chat > answer`. The stamps make it run once, and again when what is
# declared changes.

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	    echo "emowatch needs Python 3.11 to 3.14, and '$(PYTHON)' is not one." >&2; \
	    echo "Name another: make chat PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) (once) …" >&2
	@$(PYTHON) -m venv $(VENV) >&2 </dev/null
	@touch $@

$(VENV)/ready: $(DECLARED) | $(VENV)/created
	@$(PIP) -e . >&2 </dev/null
	@touch $@

$(VENV)/ready-dev: $(DECLARED) | $(VENV)/created
	@$(PIP) -e '.[corpus,data,gguf,plot,dev]' >&2 </dev/null
	@touch $(VENV)/ready $@

$(COMPAT)/ready-dev: $(DECLARED) constraints-compat.txt
	@echo "Setting up $(COMPAT) (once) …" >&2
	@$(PYTHON) -m venv $(COMPAT) >&2 </dev/null
	@awk -F'[=<>]+' 'NR == FNR { old[$$1] = 1; print; next } !($$1 in old)' constraints-compat.txt constraints.txt \
	    > $(COMPAT)/constraints.txt
	@$(COMPAT)/bin/python -m pip --disable-pip-version-check install -c $(COMPAT)/constraints.txt \
	    -e '.[corpus,data,gguf,plot,dev]' >&2 </dev/null
	@touch $@

$(NEMO)/ready: $(DECLARED) plugins/emowatch-nemo/pyproject.toml
	@echo "Setting up $(NEMO) (once) …" >&2
	@$(PYTHON) -m venv $(NEMO) >&2 </dev/null
	@grep -v '^huggingface_hub==' constraints.txt > $(NEMO)/constraints.txt
	@$(NEMO)/bin/python -m pip --disable-pip-version-check install -c $(NEMO)/constraints.txt \
	    -e . -e 'plugins/emowatch-nemo[dev]' >&2 </dev/null
	@touch $@

$(RIVALS)/ready: $(DECLARED) constraints-rivals.txt
	@echo "Setting up $(RIVALS) (once) …" >&2
	@$(PYTHON) -m venv $(RIVALS) >&2 </dev/null
	@$(RIVALS)/bin/python -m pip --disable-pip-version-check install -c constraints.txt -c constraints-rivals.txt \
	    -e . nnsight transformer-lens >&2 </dev/null
	@touch $@
