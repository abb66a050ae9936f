# Each target makes the environment .venv from python3 alone, once, and anew when what it is made from changes.
#   make demo ARGS="..."    make test ARGS="-k name"    make check    make bench ARGS="..."
#   make torture ARGS="--server valkey"

PYTHON ?= python3
ARGS ?=
# Tests wait for servers and faults more than they compute.
WORKERS ?= 2

VENV := .venv
# Of this very Python: another one named by PYTHON=... makes the environment anew.
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
# The peers and what draws charts: for `make bench` alone, on top of the rest.
RIVALS := $(subst .ready-,.bench-,$(READY))
CODE := nearcache tests benchmarks
BIN := $(VENV)/bin

# The tools look for python and node on the PATH; the wrapper of pyright would ask for its newest version.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench torture settings format clean
.DEFAULT_GOAL := test

demo: $(READY)
	@$(BIN)/nearcache demo $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(READY)
	@echo "ruff:    $$($(BIN)/ruff --version)"
	@$(BIN)/ruff check --quiet --output-format=concise $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE)
	@printf 'mypy:    ' && $(BIN)/mypy $(CODE)
	@printf 'pyright: ' && $(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

bench: $(RIVALS)
	@$(BIN)/python -m benchmarks $(ARGS)

torture: $(READY)
	@$(BIN)/python -m tests.torture $(ARGS)

# docs/settings.md, from the table of settings.
settings: $(READY)
	@$(BIN)/python -m tests.support.settings_page > docs/settings.md

# What `make check` asks of the layout, done.
format: $(READY)
	@$(BIN)/ruff check --fix --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "nearcache needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	       "name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e ".[dev,cli,embedded]"
	@touch $@

$(RIVALS): $(READY)
	@echo "adding the benchmarks' peers to $(VENV)"
	@$(BIN)/python -m pip install --quiet --quiet -c constraints.txt -e ".[bench]"
	@touch $@
