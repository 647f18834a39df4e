# Needs only Python (3.11 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Most of the time of a test is compilation on one core: one process per core.
# tests/conftest.py orders the files, long ones first.
PYTEST_FLAGS ?= -n auto --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-fast lint clean

# A stamp, so that a changed setup.py is installed again.
$(VENV)/.installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paws_jax needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade --quiet pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m paws_jax.main --config=configs/quickstart.py

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m "not slow"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What the package needs without TensorFlow, for `pip install -r`.
requirements-light.txt: setup.py
	PAWS_JAX_LIGHT=1 $(PYTHON) -c "import runpy, setuptools; \
	setuptools.setup = lambda **fields: print(*fields['install_requires'], sep='\n'); \
	runpy.run_path('setup.py')" > $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
