# Each target sets up what it needs in $(VENV); a second call does no work twice. Options go on with ARGS="...".

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
JOBS ?= $(shell test $(CORES) -ge 2 && echo 2 || echo 1)
# one more than cores: a third of the time of the tests is waiting
TEST_JOBS ?= $(shell test $(CORES) -ge 4 && echo 5 || echo $$(($(CORES) + 1)))
PROFILE ?= quick
BUDGET ?= 25m
ARGS ?=
# beside a process that has loaded torch, of which the kernels and commands of the tests are forks
PYTEST := $(BIN)/python -m tests.fork_server $(BIN)/python -m pytest -n $(TEST_JOBS)
# What `test-plain` repeats: the numbers that could hang on the last bit of one processor's sums; slow ones left out.
NUMERICAL := tests/analysis tests/models tests/test_losses.py tests/test_faults.py tests/studies/test_judge.py \
	tests/studies/test_claims.py tests/training/test_masked.py tests/training/test_optim.py tests/training/test_autoencoder.py \
	tests/data/test_augment.py tests/data/test_counter.py tests/data/test_hierarchical.py tests/data/test_views.py
# A plainer processor: no AVX in torch's own kernels and in oneDNN, MKL and OpenBLAS with the sums of an older one.
PLAINER := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem \
	MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE
PLAIN := env -u PYTHONDONTWRITEBYTECODE -u LCMAE_PROFILE -u LCMAE_DATA -u LCMAE_OUT -u LCMAE_HEADLESS OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install run notebooks desk test test-faults test-plain lint audit lab bench bench-check report clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "options: ARGS=\"...\" PROFILE=$(PROFILE) JOBS=$(JOBS) VENV=$(VENV) PYTHON=python3.12"

install: $(STAMP) ## set up .venv: 6 GB, about 3 minutes, once

run: $(STAMP) ## execute every notebook headless and build outputs/<profile>/report.html
	@$(BIN)/lcmae run --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

notebooks: $(STAMP) ## as run, then store the executed notebooks back in notebooks/
	@$(BIN)/lcmae run --profile $(PROFILE) --jobs $(JOBS) --store $(ARGS)

test: $(STAMP) ## the tests, then every notebook's deterministic cells against what is stored
	@failed=0; $(PLAIN) $(PYTEST) -p no:nbval --dist worksteal tests $(ARGS) || failed=1; \
	out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; echo "notebooks at the smoke profile:"; \
	$(PLAIN) LCMAE_OUT="$$out" LCMAE_PROFILE=smoke LCMAE_HEADLESS=1 \
	$(PYTEST) -p tests.kernel_sockets --dist loadscope --nbval-lax --nbval-kernel-name python3 notebooks || failed=1; exit $$failed

test-faults: $(STAMP) ## what must survive, caused for real and many times over: signals, kills, full disks
	@$(PLAIN) $(PYTEST) -p no:nbval --dist loadfile -m fault tests $(ARGS)

test-plain: $(STAMP) ## the fast numerical tests once more, computed as on an older processor
	@$(PLAIN) $(PLAINER) $(PYTEST) -p no:nbval --dist worksteal -m "not slow" $(NUMERICAL) $(ARGS)

lint: $(STAMP) ## ruff (rules and format), mypy, and known vulnerabilities where the package index can be asked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/python .ci/audit.py

audit: $(STAMP) ## known vulnerabilities of what is installed; needs a network
	@$(BIN)/python .ci/audit.py --needed

lab: $(STAMP) ## on a GPU: advance the studies by BUDGET, then redraw their report (DATA="parquet:...")
	@$(BIN)/lcmae study --profile lab --budget $(BUDGET) $(if $(DATA),--data $(DATA)) $(ARGS)
	@$(BIN)/lcmae report --profile lab

desk: $(STAMP) ## on two CPU cores, days: advance the studies of `desk`, then redraw their report (DATA="parquet:...")
	@OMP_NUM_THREADS=1 nice -n 19 $(BIN)/lcmae study --profile desk --seeds 5 --jobs $(JOBS) $(if $(DATA),--data $(DATA)) $(ARGS)
	@$(BIN)/lcmae report --profile desk

bench: $(STAMP) ## time training steps against other implementations, in turns: 10 minutes on two cores
	@$(BIN)/lcmae bench $(ARGS)

bench-check: $(STAMP) ## fail where a ratio of speeds is below 0.9 of the one recorded for this kind of processor
	@$(BIN)/lcmae bench --check $(ARGS)

report: $(STAMP) ## rebuild the report of what was executed
	@$(BIN)/lcmae report --profile $(PROFILE) $(ARGS)

clean: ## remove caches and build products; .venv and outputs/ stay
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	@find lcmae_core tests benchmarks notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# Python: the one named by PYTHON, else the first of these that is 3.11 or later. An environment that is there is used.
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

$(STAMP): pyproject.toml
	@for python in $(BIN)/python $(CANDIDATES); do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: no Python 3.11 or later among: $(CANDIDATES); install one, or name it: make PYTHON=..." >&2; exit 2; \
	fi; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null || [ "$$python" != "$(BIN)/python" ]; then \
		if ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
			echo "make: $$python has no venv module; install it (Debian: apt install python3-venv)" >&2; exit 2; \
		fi; \
		$$python -m venv $(VENV) || exit 2; \
	fi
	@echo "installing into $(VENV): 6 GB, about 3 minutes, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -e '.[dev]'
	@touch $@
