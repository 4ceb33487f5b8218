# `make` prints the menu. CI calls the same targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST_ARGS ?=
# How many processes run tests: most of them wait for servers. 0 runs them in one, for a debugger.
WORKERS ?= 2
SOAK_ARGS ?=
DURATION ?= 60
SEED ?= 7

install = @$(PYTHON) make/install.py --venv $(VENV)
do      = @printf '%-8s' $(1); $(2) && echo ok

.DEFAULT_GOAL := menu
.PHONY: menu demo up up-processes test test-fast check lint imports protos gen-check docs-check types fmt gen docs lock upgrade \
	features bench chaos soak helm-lint wheel clean setup setup-demo

menu:
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Run
demo: setup-demo ## a real agent on a local model, a tool call, and a crash survived: no key, no database
	@$(BIN)/behest demo

up: setup-demo ## the four services in one process, with the local model
	@$(BIN)/behest up

up-processes: setup-demo ## the four services as four processes
	@$(BIN)/behest up --processes

##@ Prove
test: setup ## everything that a clone can test; says what it SKIPPED and why
	@$(BIN)/python -m pytest -rs -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-fast: setup ## the pure and the contract tests, in seconds
	@$(BIN)/python -m pytest -rs -x tests/unit tests/contract $(PYTEST_ARGS)

check: lint imports protos gen-check docs-check types ## style, import rules, protos, generated files, types: quickest first

lint: setup
	$(call do,lint,$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .)

imports: setup
	$(call do,imports,PYTHONPATH=services:gen $(BIN)/lint-imports --no-logo > $(VENV)/imports.log || { cat $(VENV)/imports.log; false; })

protos: setup
	$(call do,protos,$(BIN)/python make/protos.py)

gen-check: setup
	$(call do,gen,$(BIN)/python make/generate.py --check)

docs-check: setup
	$(call do,docs,$(BIN)/python make/docs.py --check)

types: setup
	$(call do,types,$(BIN)/mypy --no-error-summary)

features: setup ## each promised feature with the tests that prove it, and those without
	@$(BIN)/python make/features.py

bench: ## what it costs, beside its peers, with the previous numbers
	@$(PYTHON) make/install.py --venv $(VENV)-bench bench
	@$(PYTHON) make/install.py --venv $(VENV)-litellm litellm
	@$(VENV)-bench/bin/python -m tests.bench $(BENCH_ARGS)

chaos: setup ## break everything for DURATION=60 seconds by SEED=7, then check that no promise was broken
	@$(BIN)/python -m tests.chaos --duration $(DURATION) --seed $(SEED) $(CHAOS_ARGS)

soak: setup ## 100,000 calls and 10,000 streams that are left in the middle: the gateway keeps nothing of them
	@$(BIN)/python -m tests.soak $(SOAK_ARGS)

##@ Keep
fmt: setup ## format, and mend what can be mended
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

gen: setup ## generate gen/ from proto/
	@$(BIN)/python make/generate.py

docs: setup ## generate docs/reference/ from the code
	@$(BIN)/python make/docs.py

lock: setup ## pin and hash requirements/ again, keeping the versions that still fit
	@$(BIN)/python make/lock.py

upgrade: setup ## the same with the newest versions
	@$(BIN)/python make/lock.py --upgrade

clean: ## remove what was built and installed here; .data with your sessions stays
	@rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis services/*.egg-info *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Ship
helm-lint: setup ## lint the chart and compare it with its golden renders
	@$(BIN)/helm lint --strict helm/behest && $(BIN)/python -m pytest -rs tests/helm

wheel: setup ## build the wheel
	@$(BIN)/uv build --wheel --quiet --no-build-isolation --python $(BIN)/python

setup:
	$(install) dev model helm

setup-demo:
	$(install) model
