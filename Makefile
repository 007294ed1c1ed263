# make demo | setup | test | lint | nightly | clean
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := dicom,weights,lora,search,pdf,wsi,medmnist,test

.PHONY: demo setup test lint nightly clean

demo: setup
	$(BIN)/python -m pipelines.demo

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

nightly: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow or not slow" --override-ini="addopts=-q"

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist
