# Everything runs in a virtual environment of its own, which is created if missing.
#   make demo                 Table 2 on generated data, minutes on a laptop
#   make test                 the test suite
#   make reproduce-table2 DATA=qubiq DATA_ROOT=/path/to/qubiq
# Variables: PYTHON, INSTALLER=uv|pip, TORCH_BACKEND=cpu|cu128|... (uv only), DATA, DATA_ROOT, PROFILE, ARGS="any overrides"

PYTHON ?= python3
VENV ?= .venv
INSTALLER ?= uv
TORCH_BACKEND ?=
DATA ?=
DATA_ROOT ?=
PROFILE ?= paper
ARGS ?=

UV_VERSION := 0.13.9
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL = $(if $(filter uv,$(INSTALLER)),VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
OVERRIDES = $(if $(DATA),data=$(DATA)) profile=$(PROFILE) $(if $(DATA_ROOT),'data.root=$(subst ','\'',$(DATA_ROOT))') $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup lock demo demo-all report test bench chaos fuzz test-slurm lint format docs build clean reproduce-figure1 reproduce-methods reproduce-tables

help: ## show this
	@grep -E '^[a-z0-9%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

setup: $(READY) ## create the environment

# Every package is checked against the hash in requirements.txt, unless TORCH_BACKEND selects another build of torch.
$(READY): pyproject.toml requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "dmseg needs Python 3.11, 3.12 or 3.13; set PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
ifeq ($(INSTALLER),uv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
endif
ifneq ($(TORCH_BACKEND),)
	sed -e 's/ *\\$$//' -e '/--hash/d' requirements.txt > $(VENV)/versions.txt
	$(INSTALL) --torch-backend $(TORCH_BACKEND) -c $(VENV)/versions.txt -e '.[dev,docs]'
else
	$(INSTALL) --require-hashes -r requirements.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
endif
	touch $(READY)

lock: $(READY) ## rewrite requirements.txt: versions and hashes of all packages
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --extra slurm --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --output-file requirements.txt

demo: $(READY) ## Table 2 on generated data: 175 short training runs
	$(BIN)/dmseg reproduce table=2 data=phantom profile=demo paths.results=results/demo $(ARGS)
	$(BIN)/python scripts/check_demo.py results/demo/tables/table2.csv

demo-all: $(READY) ## all tables on generated data
	$(BIN)/dmseg reproduce tables=all data=phantom profile=demo paths.results=results/demo $(ARGS)
	$(BIN)/python scripts/check_demo.py results/demo/tables/table*[0-9].csv

test: $(READY) ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

chaos: $(READY) ## runs killed at any moment, at least 20 times
	CHAOS_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -n 0 tests/chaos

fuzz: $(READY) ## malformed inputs of every kind, FUZZ_INPUTS of each, and a table of the outcomes
	FUZZ_INPUTS=$(or $(FUZZ_INPUTS),2000) OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 tests/fuzz

bench: $(READY) ## the benchmarks that run on a CPU; writes docs/performance.md
	OMP_NUM_THREADS=2 $(BIN)/python bench/table.py

bench-%: $(READY) ## one benchmark, such as bench-metrics
	OMP_NUM_THREADS=2 $(BIN)/python bench/$*.py

test-slurm: $(READY) ## a table on a one-node Slurm cluster, which is installed and started first (needs root)
	DMSEG_TEST_SLURM=1 OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -n 0 tests/slurm

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## the documentation as a website, in build/docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html

build: $(READY) ## the wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

report: $(READY) ## the HTML report of a table from finished runs: TABLE=2
	$(BIN)/dmseg report table=$(or $(TABLE),2) $(OVERRIDES)

# Each table of the paper: see configs/table. Without DATA, the paper's own data sets below data/ are used.
reproduce-table%: $(READY) ## table N of the paper: reproduce-table2
	$(BIN)/dmseg reproduce table=$* $(OVERRIDES)

reproduce-methods: $(READY) ## beyond the paper: the methods of Table 3 by Dice, BDice, ECE and distance to the raters
	$(BIN)/dmseg reproduce table=methods $(OVERRIDES)

reproduce-tables: $(READY) ## all tables
	$(BIN)/dmseg reproduce tables=all $(OVERRIDES)

reproduce-figure1: $(READY) ## Figure 1, and why soft labels need other losses
	$(BIN)/dmseg reproduce figure=1 paths.results=results $(ARGS)
	$(BIN)/dmseg reproduce figure=soft-labels paths.results=results $(ARGS)

clean: ## remove caches and builds, keep results
	rm -rf .pytest_cache .mypy_cache .ruff_cache dist build
