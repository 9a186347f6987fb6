# Two commands work on a fresh machine: `make demo` and `make test`. Each sets up what it needs first, once.
VENV ?= .venv
PYTHON ?= python3

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
# One range for torch, the one in pyproject.toml.
TORCH := $(shell sed -n 's/^ *"\(torch[^"]*\)".*/\1/p' pyproject.toml)

DEVICE ?= cuda
OUT ?= outputs/measure

QUICK := $(BIN)/python -m pytest -n 2 -m "not cluster and not chaos"

.PHONY: help install demo quick test lint types bench measure chaos
.DEFAULT_GOAL := help

help:
	@echo "make demo     train the playground's small model on two workers and show what it learned"
	@echo "make quick    the tests that start no cluster"
	@echo "make test     every test"
	@echo "make chaos    kill runs and searches at random moments and compare what they end with"
	@echo "make bench    step time and memory against TRL; ARGS=\"--pairs FILE.parquet\" for pairs of your own"
	@echo "make measure  time and memory on a GPU, into OUT=$(OUT); DEVICE=cpu tries the script; see tests/measure/gpu.py"
	@echo "make lint     format and style;  make types: mypy"
	@echo "make install  only the set-up, into VENV=$(VENV)"

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python jobs/playground.py

quick: $(STAMP)
	$(QUICK)

# One after the other, and both whatever comes of the first: a cluster needs the machine for itself.
test: $(STAMP)
	@$(QUICK); quick=$$?; $(BIN)/python -m pytest -m "cluster and not chaos" && exit $$quick

chaos: $(STAMP)
	$(BIN)/python -m pytest -m chaos

bench: $(STAMP)
	$(BIN)/python -m tests.peer.bench $(ARGS)

measure: $(STAMP)
	$(BIN)/python -m tests.measure.gpu --device $(DEVICE) $(if $(filter cpu,$(DEVICE)),--tiny) --out $(OUT)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

# torch first: what is resolved afterwards then keeps the build, CPU or GPU, that this machine's package index offers.
$(STAMP): pyproject.toml
	@$(PYTHON) -c "$$MACHINE_CHECK"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# Said before a minute is spent on downloads.
define MACHINE_CHECK
import importlib.util, sys
missing = []
if sys.version_info < (3, 11):
    missing.append(f"Python 3.11 or newer (this is {sys.version.split()[0]}; choose another with make PYTHON=python3.12)")
if importlib.util.find_spec("ensurepip") is None:
    missing.append("the module ensurepip, for virtual environments (Debian, Ubuntu: apt-get install python3-venv)")
sys.exit("\n".join(f"This machine lacks {what}" for what in missing) or 0)
endef
export MACHINE_CHECK
