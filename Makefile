# Thin: each target calls `ser`. EXP names an experiment, e.g. make train EXP=experiments/emovo.json
.PHONY: help setup quickstart train tune eval stats report check test test-extras lint format schemas pages lock leaks bench bench-prepare bench-stats bench-finetune clean \
	docker-build docker-train docker-test lint-containers sbom licences audit release

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
	@echo "make tune  EXP=experiments/X.json   search for settings alone (make train does it, too)"
	@echo "make eval  EXP=experiments/X.json   metrics, confusion matrices, report.html"
	@echo "make stats [EXP=...]                which difference is real (every experiment when EXP is absent)"
	@echo "make check EXP=...                  validate, draw every split, estimate the disk needed"
	@echo "make leaks                          what a split that leaks speakers adds to UAR, as a table"
	@echo "make docker-build docker-train EXP=... docker-test   the same in a container (docs/containers.md)"
	@echo "make sbom | licences | audit | lint-containers       what is inside, its licences, known faults, style of scripts"
	@echo "make release                        package, what is inside, licences, locks and checksums in build/release"
	@echo "make test | test-extras | lint | format | schemas | pages | lock | setup | bench | bench-prepare | bench-stats | bench-finetune"

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

tune: need-exp setup
	$(SER) tune $(EXP) --jobs $(JOBS) $(ARGS)

eval: need-exp setup
	$(SER) eval $(EXP) $(ARGS)

stats: setup
	$(SER) stats $(EXP) $(ARGS)

check: need-exp setup
	$(SER) check $(EXP) $(ARGS)

# All but what is marked slow. ARGS='-m slow' runs that, since pytest takes the last -m; ARGS='-m ""' runs everything
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

# What is skipped without the extras timm, xgboost and opensmile; they lie beside .venv and leave it as it is
EXTRAS := .cache/extras
$(EXTRAS)/.ready: docker/requirements-extras.txt .venv/.ready
	rm -rf $(EXTRAS)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(EXTRAS) -r docker/requirements-extras.txt
	touch $@

test-extras: $(EXTRAS)/.ready
	PYTHONPATH="$(CURDIR)/$(EXTRAS)" OMP_NUM_THREADS=1 $(BIN)/pytest -rs tests/test_spectrogram_timm.py \
		tests/test_spectrogram_guard.py tests/test_classical.py tests/test_trainable.py $(ARGS)

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
	sh docker/lock.sh $(ARGS)

# Containers: docs/containers.md
IMAGE ?= sertain:cpu
TORCH_KIND := $(if $(findstring cuda,$(IMAGE)),cuda,cpu)
COMMIT := git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null
VERSION := sed -n 's/^__version__ = "\(.*\)"/\1/p' ser_scripts/__init__.py
docker-build:
	docker build $(ARGS) --build-arg TORCH=$(TORCH_KIND) \
		$(if $(findstring cuda,$(IMAGE)),,--build-arg TORCH_INDEX="$${TORCH_INDEX:-}") \
		--build-arg COMMIT="$$($(COMMIT))" --build-arg VERSION="$$($(VERSION))" -t $(IMAGE) .

# Mounting data hides the image's built-in corpus: it is made in data/raw where an experiment names it
DOCKER_RUN = docker run --rm --init --ipc=host $(if $(findstring cuda,$(IMAGE)),--gpus all) --user "$$(id -u):$$(id -g)" \
	-e SER_IMAGE_DIGEST="$$(docker image inspect --format '{{.Id}}' $(IMAGE))" \
	-v "$$PWD/data:/workspace/data" -v "$$PWD/runs:/workspace/runs" $(IMAGE)
docker-train: need-exp
	mkdir -p data/raw runs
	test -d data/raw/toy || ! grep -q '"toy"' $(EXP) || $(DOCKER_RUN) prepare toy
	$(DOCKER_RUN) train $(EXP) $(ARGS)

# Builds the image for real; without Docker it brings an engine up where it can (docker/ci_engine.sh)
docker-test: setup
	SER_CONTAINER_TESTS=1 $(BIN)/pytest -rs --durations=12 tests/test_container_engine.py $(ARGS)

# What looks at all this from outside: tools of their own, from a lock of their own
TOOLS := .cache/tools
$(TOOLS)/.ready: docker/requirements-tools.lock
	test -x $(TOOLS)/bin/pip || python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r docker/requirements-tools.lock
	touch $@

lint-containers: $(TOOLS)/.ready
	$(TOOLS)/bin/hadolint Dockerfile .devcontainer/Dockerfile
	$(TOOLS)/bin/shellcheck --exclude=SC1010 docker/*.sh .ci/run

sbom: setup $(TOOLS)/.ready
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.cdx.json $(BIN)/python
	@echo build/sbom.cdx.json

licences: setup $(TOOLS)/.ready
	mkdir -p build
	$(TOOLS)/bin/pip-licenses --python=$(BIN)/python --from=mixed --order=license --format=markdown --output-file=build/licences.md $(ARGS)
	@echo build/licences.md

# What goes with a version: the package, what is inside and under which licences, the locks, and checksums of all
release: sbom licences
	rm -rf build/release build/lib build/bdist.*
	mkdir -p build/release
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/release .
	cp build/sbom.cdx.json build/licences.md requirements.lock docker/requirements-cpu.lock docker/requirements-cuda.lock build/release
	cd build/release && sha256sum * >SHA256SUMS
	@echo build/release: $$(ls build/release)

# Asks a service on the net for known faults; not part of the tests
audit: $(TOOLS)/.ready
	$(TOOLS)/bin/pip-audit --no-deps --disable-pip -r requirements.lock -r docker/requirements-cuda.lock

# The price of a leak: one frozen model under three kinds of split (needs EmoDB, CREMA-D and Whisper base)
LEAKS := $(foreach corpus,emodb cremad,$(foreach kind,random per-emotion independent,leak-$(corpus)-$(kind)))
leaks: setup
	set -e; for name in $(LEAKS); do $(SER) train experiments/$$name.json $(ARGS); $(SER) eval experiments/$$name.json; done
	$(BIN)/python benchmarks/price_of_a_leak.py "$${SER_RUNS:-runs}"

# 100,000 clips: seconds and memory of the manifest, the clip store and the search for copies
bench-prepare: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/prepare_memory.py $(ARGS)

# do the statistics keep their word? Quick: under 2 minutes; ARGS=--full as docs/statistics.md prints
bench-stats: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/stats_calibration.py $(ARGS)

# Speed of the frozen path and of fine-tuning against named alternatives, as ratios (SER_DATA with EmoDB, SER_MODELS)
bench: setup
	set -e; for what in embed heads; do $(BIN)/python benchmarks/fast_path.py $$what $(ARGS); done
	$(MAKE) bench-finetune

# Speed of training against transformers' example, passes alone, and features made anew (SER_DATA, SER_MODELS)
bench-finetune: setup
	set -e; for what in whisper wav2vec2 compact; do \
	  OMP_NUM_THREADS=1 $(BIN)/python benchmarks/finetune.py $$what $(ARGS); done

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
