# `make demo` and `make test` need Python 3.10 or newer and make, nothing else. `make` alone lists the targets.

# The Python that creates the virtual environment.
PYTHON3 ?= python3
# What to install where there is no torch yet; several words are several arguments of pip:
#   make demo TORCH="torch==2.13.0 --index-url URL_OF_CPU_WHEELS"
TORCH ?= torch==2.13.0
# Further arguments of the command behind a target:
#   make test ARGS="-k attention"
ARGS ?=

# Tests run in as many processes as there are cores, at most 8, each on one thread; `make test PROCESSES=0` uses this one alone.
PROCESSES ?= logical

# An active virtual environment is used; otherwise one is made in .venv.
VENV := $(if $(wildcard $(VIRTUAL_ENV)/bin/python),$(subst $(CURDIR)/,,$(VIRTUAL_ENV)),.venv)
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
# Keeps the repository off sys.path, where `import modeling` would work by accident (Python 3.10 cannot).
SAFE_PATH = $(shell $(PYTHON) -c "import sys; print('-P' if sys.version_info >= (3, 11) else '')")

PYTEST = $(SAFE_PATH) -m pytest --numprocesses $(PROCESSES) --maxprocesses 8 --dist worksteal
# Models of tests are small: more threads only wait for each other.
test test-all test-oldest conformance: export OMP_NUM_THREADS ?= 1

# $(call step,what,command): say what happens, do it, say how long it took.
step = @echo "==> $(1)"; start=$$(date +%s); { $(2); } || exit 1; echo "    done in $$(( $$(date +%s) - start )) s"

.NOTPARALLEL:
.PHONY: help install demo test test-all test-oldest conformance check style clean

help:
	@echo "make install      what development needs: the package (editable), the tests' and the checks' tools"
	@echo "make demo         train a small Transformer on data made on the spot, and use it"
	@echo "make test         the quick tests"
	@echo "make test-all     all tests that need no accelerator, also the slow ones"
	@echo "make test-oldest  the tests of models and recipes on the oldest transformers that we support"
	@echo "make conformance  the transformers library's own model tests, on our models"
	@echo "make check        lint, formatting, types"
	@echo "make style        mend what linter and formatter can mend"
	@echo "make clean        remove what was built and cached; $(VENV) and runs/ stay"
	@echo
	@echo "Each target first installs what it needs into $(VENV); where that has no torch: $(TORCH)"

# What is installed: one empty file for each set of requirements, written last, so that an installation that was
# interrupted starts again. They hold for the checkout that is named beside them.
INSTALLED := $(VENV)/transformer-theatre
ifneq ($(shell cat "$(INSTALLED)/checkout" 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)/run $(INSTALLED)/dev $(INSTALLED)/conformance
endif

$(INSTALLED)/run: REQUIREMENTS := .
$(INSTALLED)/dev: REQUIREMENTS := .[dev]
$(INSTALLED)/conformance: REQUIREMENTS := .[conformance]

$(INSTALLED)/run $(INSTALLED)/dev $(INSTALLED)/conformance: pyproject.toml setup.py $(PYTHON)
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip >/dev/null
	@$(PYTHON) -c 'from importlib.metadata import version; v = version("torch"); \
		exit(tuple(map(int, v.split(".")[:2])) < (2, 6) or print("==> Keeping torch", v))' 2>/dev/null || $(MAKE) -s torch
	$(call step,Installing $(REQUIREMENTS) into $(VENV),$(PIP) install -qq -e "$(REQUIREMENTS)")
	@[ "$$(cat $(INSTALLED)/checkout 2>/dev/null)" = "$(CURDIR)" ] || rm -rf $(INSTALLED)
	@mkdir -p $(INSTALLED) && echo "$(CURDIR)" > $(INSTALLED)/checkout && touch $(INSTALLED)/run $@

# First and alone: nothing else then has a reason to bring another one.
.PHONY: torch
torch:
	$(call step,Installing $(TORCH) into $(VENV) (the largest download),$(PIP) install -qq $(foreach word,$(TORCH),"$(word)"))

# A torch that this Python has already stays visible.
$(PYTHON):
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"Python 3.10 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON3=python3.12")'
	$(call step,Creating the virtual environment $(VENV) with $$($(PYTHON3) --version),$(PYTHON3) -m venv --clear \
		$$($(PYTHON3) -c 'from importlib.util import find_spec; print(find_spec("torch") and "--system-site-packages" or "")') $(VENV))

install: $(INSTALLED)/dev

demo: $(INSTALLED)/run
	@$(VENV)/bin/theatre demo $(ARGS)

test: $(INSTALLED)/dev
	$(PYTHON) $(PYTEST) $(ARGS)

test-all: $(INSTALLED)/dev
	$(PYTHON) $(PYTEST) -m "not gpu" $(ARGS)

# The oldest transformers that pyproject.toml allows, in an environment of its own.
test-oldest: build/oldest/installed
	build/oldest/bin/python $(PYTEST) tests/configuration tests/modeling tests/recipes $(ARGS)

build/oldest/installed: pyproject.toml $(PYTHON)
	$(call step,Creating build/oldest,$(PYTHON3) -m venv --clear build/oldest)
	$(call step,Installing $(TORCH) and transformers 5.4 into it,build/oldest/bin/python -m pip install -q $(foreach word,$(TORCH),"$(word)") \
		&& build/oldest/bin/python -m pip install -q "transformers==5.4.*" -e ".[dev]")
	@touch $@

conformance: $(INSTALLED)/conformance
	$(PYTHON) tests/conformance/run_conformance.py $(ARGS)

# Type checkers cannot follow setuptools' import hook; they read a tree of links, as the package is installed.
check: $(INSTALLED)/dev
	@rm -rf build/tree && mkdir -p build/tree/transformer_theatre
	@cd build/tree/transformer_theatre && ln -s $(addprefix ../../../,src/transformer_theatre/*.* configuration modeling recipes) .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

style: $(INSTALLED)/dev
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:
	rm -rf build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache
	find configuration modeling recipes src tests -name __pycache__ -prune -exec rm -rf {} +
