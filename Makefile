# Two commands work on a fresh machine: `make demo` and `make test`. Each sets up what it needs first, once.
VENV ?= .venv
PYTHON ?= python3

BIN := $(abspath $(VENV))/bin
# What the jobs need; and beside it what tests, checks and benchmarks need.
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# One range for torch, the one in pyproject.toml.
TORCH := $(shell sed -n 's/^ *"\(torch[^"]*\)".*/\1/p' pyproject.toml)

DEVICE ?= cuda
OUT ?= outputs/measure

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)
TESTS := $(BIN)/python -m pytest -n 2

.PHONY: help install demo quick test lint types bench measure chaos
.DEFAULT_GOAL := help

help:
	@echo "make demo     train the playground's small model on two workers and show what it learned"
	@echo "make install  only the set-up, into VENV=$(VENV)"
	@echo
	@echo "make quick    the tests that start no cluster"
	@echo "make test     every test"
	@echo "make chaos    kill runs and searches at random moments and compare what they end with"
	@echo "make lint     format and style;  make types: mypy"
	@echo
	@echo "make bench    step time and memory against TRL; ARGS=\"--pairs FILE.parquet\" for pairs of your own"
	@echo "make measure  time and memory on a GPU, into OUT=$(OUT); DEVICE=cpu tries the script"
	@echo
	@echo "Programs that measure, each with --help: $(VENV)/bin/python -m NAME"
	@echo "  tests.measure.bench           what make bench runs"
	@echo "  tests.measure.gpu             what make measure runs: step time, memory, correctness, resume"
	@echo "  tests.measure.make_bundle     what a GPU machine without a network needs; .install_bundle unpacks it there"
	@echo "  tests.measure.start           where the seconds before the first step go; .start_floor is Ray Train's share"
	@echo "  tests.measure.checkpoints     how long steps wait for checkpoints, on a disk and in a slow object store"
	@echo "  tests.measure.sharing         what one pass of the reference model for all trials saves"
	@echo "  tests.measure.packing         padded, packed and shared rows beside each other, against their operations"
	@echo "  tests.measure.scaling         the same steps on one worker and on two"
	@echo "  tests.measure.balance         how evenly windows are shared out over 1 to 64 ranks"
	@echo "  tests.measure.flips           whether a flipped bit in any file is noticed, and what noticing costs"
	@echo "  tests.measure.rungs           whether the rungs of a search foretell its end"
	@echo "  tests.measure.winners         what it costs to decide a search over objectives by accuracy and not by a judge"
	@echo "  tests.measure.curating        what curating finds of planted noise, and what a model gains by it"
	@echo "  tests.measure.sampling        whether sampled answers depend on workers, batches or a kill"
	@echo "  tests.measure.judging         whether a faulty, costly judge with a secret key leaves the truth and nothing else"
	@echo "  tests.measure.rounds          true quality of three rounds on own answers against one long one"
	@echo "  tests.measure.scale.prepare   time, memory and disk of preparing, against the number of pairs"
	@echo "  tests.measure.scale.opening   what a rank holds before its first window, against the number of pairs"
	@echo "  tests.measure.scale.stream    what ranks read and wait for, against their number"

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python jobs/playground.py

quick: $(DEV)
	$(TESTS) -m "not cluster and not chaos"

test: $(DEV)
	$(TESTS) -m "not chaos"

chaos: $(DEV)
	$(BIN)/python -m pytest -m chaos

bench: $(DEV)
	$(BIN)/python -m tests.measure.bench $(ARGS)

measure: $(DEV)
	$(BIN)/python -m tests.measure.gpu --device $(DEVICE) $(if $(filter cpu,$(DEVICE)),--tiny) --out $(OUT)

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV)
	$(BIN)/mypy

# torch first: what is resolved afterwards then keeps the build, CPU or GPU, that this machine's package index offers.
# pip would compile what it installs on one core.
$(STAMP): pyproject.toml
	@$(PYTHON) -c "$$MACHINE_CHECK"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --editable .
	-@$(COMPILE)
	touch $@

$(DEV): $(STAMP)
	$(PIP) --editable ".[dev]"
	-@$(COMPILE)
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
