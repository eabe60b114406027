# Thin: each target calls `ser`. EXP names an experiment, e.g. make train EXP=experiments/emovo.json
.PHONY: help setup quickstart train eval stats report check test lint format schemas pages lock leaks bench bench-prepare clean

SHELL := /bin/sh
BIN := .venv/bin
SER := $(BIN)/ser
EXP ?=
ARGS ?=
JOBS ?= 1
QUICK := SER_DATA=data/raw SER_RUNS=runs

help:
	@echo "make quickstart                     set up, make the built-in corpus, train 2 models x 3 seeds, evaluate, test the difference"
	@echo "make train EXP=experiments/X.json   train every run of an experiment that is not finished [JOBS=2]"
	@echo "make eval  EXP=experiments/X.json   metrics, confusion matrices, report.html"
	@echo "make stats [EXP=...]                which difference is real (every experiment when EXP is absent)"
	@echo "make check EXP=...                  validate, draw every split, estimate the disk needed"
	@echo "make leaks                          what a split that leaks speakers adds to UAR, as a table"
	@echo "make test | lint | format | schemas | pages | lock | setup | bench-prepare"

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml docker/setup.sh
	sh docker/setup.sh
	touch $@

need-exp:
	@test -n "$(EXP)" || { echo "name an experiment, e.g. EXP=experiments/emovo.json (there are: $$(ls experiments/*.json | tr '\n' ' '))" >&2; exit 2; }
.PHONY: need-exp

quickstart: setup
	$(QUICK) $(SER) prepare toy
	$(QUICK) $(SER) train experiments/quickstart.json --jobs 2 --device cpu
	$(QUICK) $(SER) eval experiments/quickstart.json
	$(QUICK) $(SER) stats experiments/quickstart.json
	@echo
	@echo "The report: runs/quickstart/report/report.html (open it in a browser)"
	@echo "Next: your own experiment, e.g. $(SER) new experiment mine --corpus emodb; README.md says how."

train: need-exp setup
	$(SER) train $(EXP) --jobs $(JOBS) $(ARGS)

eval: need-exp setup
	$(SER) eval $(EXP) $(ARGS)

stats: setup
	$(SER) stats $(EXP) $(ARGS)

check: need-exp setup
	$(SER) check $(EXP) $(ARGS)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: setup
	$(SER) schemas

pages: setup
	$(SER) corpora --write-pages data

lock:
	sh docker/lock.sh

# The price of a leak: one frozen model under three kinds of split (needs EmoDB, CREMA-D and Whisper base)
LEAKS := $(foreach corpus,emodb cremad,$(foreach kind,random per-emotion independent,leak-$(corpus)-$(kind)))
leaks: setup
	set -e; for name in $(LEAKS); do $(SER) train experiments/$$name.json $(ARGS); $(SER) eval experiments/$$name.json; done
	$(BIN)/python benchmarks/price_of_a_leak.py "$${SER_RUNS:-runs}"

# 100,000 clips: seconds and memory of the manifest, the clip store and the search for copies
bench-prepare: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/prepare_memory.py $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
