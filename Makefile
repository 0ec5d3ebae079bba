# What can be done here: `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo test up lint bench faults power screenshots lock dev onnx gptq benchmarks
SHELL := /bin/bash
export FINETUNER_HOME ?= data
PY := .venv/bin/python

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## virtual environment, pinned packages, the embedded model
	@deploy/setup.sh
	@$(PY) -m runner.embed --home $(FINETUNER_HOME)

demo: setup ## train the embedded Gemma on the example and show the before and after
	@$(PY) -m runner.demo --home $(FINETUNER_HOME)

up: setup ## runner and web app together; Ctrl-C stops both
	@exec $(PY) deploy/up.py --home $(FINETUNER_HOME)

dev:
	@deploy/setup.sh dev onnx gptq benchmarks kernels

onnx: ## what exports as ONNX need beside that (50 MB to fetch, 160 MB on the disk)
	@deploy/setup.sh onnx

gptq: ## what 4-bit exports need beside that, in .venv-gptq (24 MB on the disk)
	@deploy/setup.sh gptq

benchmarks: ## what benchmarks in reports need beside that: lm-eval (11 MB to fetch, 100 MB on the disk)
	@deploy/setup.sh benchmarks

lint: dev ## ruff, mypy, import-linter
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/lint-imports

test: dev ## every test (minutes: real models are trained)
	@$(PY) -m runner.embed --home data
ifdef T
	@$(PY) -m pytest $(T)
else
	@failed=0; $(PY) -m pytest -m "not alone" -n 3 || failed=1; $(PY) -m pytest -m alone || failed=1; exit $$failed
endif

bench: setup ## what the runner costs, and how fast it is
	@$(PY) -m bench.runner_cost && $(PY) -m bench.spool && $(PY) -m bench.data_check

faults: dev ## break the runner on purpose: kills, failing disks, planted bugs (half an hour; needs strace)
	@$(PY) -m tests.faults

power: dev ## cut the power at every point of a recorded life, planted bugs too (half an hour; needs strace)
	@$(PY) -m tests.power

screenshots: dev ## every page in light and dark, as pictures under screenshots/ (needs chromium)
	@$(PY) -m tests.screenshots $(T)

lock: ## resolve the lock files anew (needs uv)
	@deploy/lock.sh
