# `make help` lists the commands. Two variables may be set: PYTHON, the interpreter
# to build on (default python3; `make clean` first, an environment keeps its own), and
# VENV, the environment's folder (default .venv).
SHELL := /bin/bash
VENV ?= .venv
# Test processes; each one imports ESPnet (10 to 30 s), so files are kept together.
WORKERS ?= 2
PYTEST_ARGS ?=

python := $(VENV)/bin/python
inputs := setup.py pyproject.toml espnet_ofa.pth requirements/install.sh
# Without git (an unpacked archive): all there are.
shell_files = $(shell git ls-files --cached --others --exclude-standard '*.sh' .ci/run \
	2>/dev/null || find .ci/run egs2 requirements -name '*.sh' -o -path .ci/run)
# A stamp is void where the environment's interpreter is gone.
gone := $(if $(shell test -x $(python) && echo there),,gone)
# What `source $(VENV)/bin/activate` would set, for the scripts.
activate := VIRTUAL_ENV="$(abspath $(VENV))" PATH="$(abspath $(VENV))/bin:$${PATH}"

next := $(VENV)/next
.PHONY: help run test test-zoo-next lint install install-test clean gone

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: install  ## install, then the main recipe: egs2/synth, stages 1 to 13
	cd egs2/synth/ofa1 && $(activate) ./run.sh --stage 1 --stop_stage 13

test: install-test lint  ## install what is missing, then lint, types, shellcheck, tests
	OMP_NUM_THREADS=1 $(activate) $(python) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-zoo-next: $(next)/python  ## tests/zoo, packages loaded by the newest ESPnet and espnet_model_zoo
	OMP_NUM_THREADS=1 ZOO_PYTHON="$(abspath $<)" $(activate) $(python) -m pytest tests/zoo $(PYTEST_ARGS)

lint: install-test  ## ruff, pyright, shellcheck
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m pyright --pythonpath $(python)
	$(VENV)/bin/shellcheck --external-sources $(shell_files)

install: $(VENV)/.installed-run  ## build the environment for the recipes

install-test: $(VENV)/.installed-test  ## the same, with what tests and linters need

# Beside the environment, not in it: an interpreter that finds newer packages first.
$(next)/python: requirements/lock-next.txt | install-test
	rm -rf $(next)
	$(python) -m pip --disable-pip-version-check install -qq --no-deps \
		--ignore-requires-python --target $(next)/packages --requirement $<
	printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$$@"\n' \
		"$(abspath $(next)/packages)" "$(abspath $(python))" >$@
	chmod +x $@

$(VENV)/.installed-run: requirements/lock.txt $(inputs) $(gone)
	VENV=$(VENV) requirements/install.sh run
	@touch $@

$(VENV)/.installed-test: requirements/lock.txt requirements/lock-test.txt $(inputs) $(gone)
	VENV=$(VENV) requirements/install.sh test
	@touch $(VENV)/.installed-run $@

clean:  ## remove the environment and caches; recipes' results stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
