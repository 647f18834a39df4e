# Needs only Python (3.11 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Most of the time of a test is compilation on one core: one process per core.
# tests/conftest.py orders the files, long ones first.
PYTEST_FLAGS ?= -n auto --dist loadfile --no-loadscope-reorder

# Some quick tests of each package from outside that training depends on.
OLDEST ?= .venv-oldest
OLDEST_TESTS ?= tests/setup_test.py tests/optim tests/plots tests/runs \
	tests/classifier tests/export tests/weights

.PHONY: quickstart test test-fast test-lower-bounds lint docs clean

# A stamp, so that a changed setup.py is installed again.
$(VENV)/.installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paws_jax needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade --quiet pip
	$(BIN)/python -m pip install --quiet -e ".[dev,docs]"
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m paws_jax.main --config=configs/quickstart.py

test: $(VENV)/.installed lint docs
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m "not slow"

# With the oldest packages that setup.py allows, in an environment of its own.
# They are older than what they use, which warns of parts that will be removed.
test-lower-bounds:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "the lower bounds are those of Python 3.11; run make test-lower-bounds PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python .ci/lower_bounds.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --upgrade --quiet pip
	$(OLDEST)/bin/python -m pip install --quiet -c $(OLDEST)/constraints.txt -e ".[dev]"
	$(OLDEST)/bin/python -m pytest $(PYTEST_FLAGS) -m "not slow" \
	  -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning \
	  $(OLDEST_TESTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The web site of the documentation, in build/site. Every warning is an error:
# links and anchors that do not exist, among them those in docstrings.
docs: $(VENV)/.installed
	JAX_PLATFORMS=cpu NO_MKDOCS_2_WARNING=1 \
	$(BIN)/python -m mkdocs build --strict -f docs/site/mkdocs.yml

# What the package needs without TensorFlow, for `pip install -r`.
requirements-light.txt: setup.py
	PAWS_JAX_LIGHT=1 $(PYTHON) -c "import runpy, setuptools; \
	setuptools.setup = lambda **fields: print(*fields['install_requires'], sep='\n'); \
	runpy.run_path('setup.py')" > $@

clean:
	rm -rf $(VENV) .venv-other $(OLDEST) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
