# Each target makes the environment .venv from python3 alone, once, and anew when what it is made from changes.
# `make help` lists them. ARGS reaches the program behind a target: make test ARGS="-k name"

PYTHON ?= python3
ARGS ?=
# Tests wait for servers and faults more than they compute.
WORKERS ?= 2
# Each worker begins with whole files, so that what a file's tests share is made once; who is done takes from the rest.
SPREAD := -n $(WORKERS) --dist worksteal

VENV := .venv
# Of this very Python: another one named by PYTHON=... makes the environment anew.
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
# The peers and what draws charts: for `make bench` alone, on top of the rest.
RIVALS := $(subst .ready-,.bench-,$(READY))
# What builds and examines distributions: for `make release-check` alone.
RELEASE := $(subst .ready-,.release-,$(READY))
CODE := nearcache tests benchmarks docs/conf.py
BIN := $(VENV)/bin

# The tools look for python and node on the PATH; the wrapper of pyright would ask for its newest version.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test quick check coverage matrix bench torture docs pictures release-check settings format hooks clean
.DEFAULT_GOAL := test

# A target's line of help stands behind its ##.
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

demo: $(READY) ## 4 processes share a cache on a real Valkey, through an outage
	@$(BIN)/nearcache demo $(ARGS)

test: $(READY) ## every test, against real servers; ends with the slowest ten
	@$(BIN)/python -m pytest $(SPREAD) --durations=10 $(ARGS)

quick: $(READY) ## unit tests, schedules and doctests alone
	@$(BIN)/python -m pytest tests/unit tests/schedules nearcache $(SPREAD) $(ARGS)

check: $(READY) ## linters, type checkers and the rules of imports
	@echo "ruff:    $$($(BIN)/ruff --version)"
	@$(BIN)/ruff check --quiet --output-format=concise $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE)
	@printf 'mypy:    ' && $(BIN)/mypy $(CODE)
	@printf 'pyright: ' && $(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

# Processes that the tests kill leave no data; [tool.coverage] in pyproject.toml says what is measured.
coverage: $(READY) ## every test with branch coverage
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(SPREAD) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# It makes an environment for each combination, so it needs none.
matrix: ## the tests on each Python, with the lowest and the newest redis-py; QUICK=1: fewer tests
	@$(PYTHON) tests/support/matrix.py $(if $(QUICK),--quick) $(SPREAD) $(ARGS)

bench: $(RIVALS) ## benchmarks beside other caches, and the budget
	@$(BIN)/python -m benchmarks $(ARGS)

torture: $(READY) ## the promises under faults on real servers
	@$(BIN)/python -m tests.torture $(ARGS)

docs: $(READY) ## the site in build/site; a warning is an error
	@$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --builder html docs build/site $(ARGS)
	@$(BIN)/python -m tests.support.examples
	@echo "build/site/index.html"

pictures: $(RIVALS) ## draw the pictures of the README and of docs/concepts.md anew, from runs
	@$(BIN)/python -m benchmarks.pictures $(ARGS)

release-check: $(RELEASE) ## build wheel and sdist in dist, and check all that a release must have
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist > /dev/null
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/python -m tests.support.release dist

settings: $(READY) ## write docs/settings.md and .env.example from the table of settings
	@$(BIN)/python -m tests.support.settings_page > docs/settings.md
	@$(BIN)/python -m tests.support.settings_page --env > .env.example

format: $(READY) ## mend what `make check` finds in the layout of the code
	@$(BIN)/ruff check --fix --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

hooks: $(READY) ## let git run the checks before each commit
	@$(BIN)/pre-commit install

clean: ## remove the environments and what the tools leave behind
	rm -rf $(VENV) .matrix .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "nearcache needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	       "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e ".[dev,cli,docs,embedded,otel,prometheus]"
	@touch $@

$(RIVALS): $(READY)
	@echo "adding the benchmarks' peers to $(VENV)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e ".[bench]"
	@touch $@

$(RELEASE): $(READY)
	@echo "adding what builds distributions to $(VENV)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e ".[release]"
	@touch $@
