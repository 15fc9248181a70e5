# Thin: the two commands of the README (reproduce, test), and what a contributor needs around them.
# PYTHON=... chooses the interpreter; otherwise the first one that really runs is taken.

VENV := .venv
BIN := $(VENV)/bin
MINIMUM := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))

FLOOR := .venv-floor
FLOOR_JAX := 0.11.2
ROW := sparse_vd.table1.lenet-300-100
PIP := -m pip install -qq --disable-pip-version-check

.PHONY: help setup reproduce test test-floor lint format docs lock clean
.DEFAULT_GOAL := help

help:
	@echo "make reproduce      train on the digits that come along and show the paper's table beside ours"
	@echo "make test           run the tests"
	@echo "make setup          only make $(VENV)"
	@echo "make lint           ruff and pyright"
	@echo "make test-floor     kernels and core on the oldest supported JAX"
	@echo "make docs           render the tables of README and BUILD_NOTES again from the records"
	@echo "make lock           refresh requirements.lock (needs uv)"

setup: $(VENV)/.ready

# A pyenv shim can be on the PATH and fail when called, so every candidate is run before it is believed.
$(VENV)/.ready: pyproject.toml requirements.lock
	@for python in $(PYTHON) python3.13 python3.12 \
	    $$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[23]*/bin/python 2>/dev/null | sort -Vr) \
	    python3 python3.14 python; do \
	  if "$$python" -c '$(MINIMUM)' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "no Python >= 3.12 with venv that runs: install one (apt install python3.12-venv, pyenv install 3.12, or python.org), or name it: make PYTHON=/path/to/python" >&2; exit 2; \
	fi; \
	echo "setting up $(VENV) with $$("$$found" --version), one or two minutes"; \
	"$$found" -m venv --clear $(VENV) && \
	$(BIN)/python $(PIP) -r requirements.lock && \
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e . && \
	touch $@

reproduce: setup
	@$(BIN)/adaptive-nets run $(ROW)-original --preset quick --data.source embedded
	@$(BIN)/adaptive-nets run $(ROW)-sparse --preset quick --data.source embedded
	@$(BIN)/adaptive-nets table $(ROW) --results runs
	@$(BIN)/adaptive-nets report --results runs --out report.html

test: setup
	@$(BIN)/python -m pytest -q

# The package with the oldest JAX it promises to work with; everything else as locked.
$(FLOOR)/.ready: $(VENV)/.ready
	@echo "setting up $(FLOOR) with JAX $(FLOOR_JAX)"
	@$(BIN)/python -m venv --clear $(FLOOR)
	@grep -vE '^jax(lib)?==' requirements.lock > $(FLOOR)/requirements.txt
	@$(FLOOR)/bin/python $(PIP) -r $(FLOOR)/requirements.txt jax==$(FLOOR_JAX) jaxlib==$(FLOOR_JAX)
	@$(FLOOR)/bin/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

test-floor: $(FLOOR)/.ready
	@$(FLOOR)/bin/python -c 'import jax; assert jax.__version__ == "$(FLOOR_JAX)", jax.__version__'
	@$(FLOOR)/bin/python -m pytest -q -m core

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup
	@$(BIN)/adaptive-nets docs

# Without the project's own line, hashes and registry; the first line says where the file is from.
lock: setup
	@head -1 requirements.lock > requirements.new
	@uv export -q --python $(BIN)/python --format requirements-txt --no-hashes --no-emit-project \
	  --no-header --no-annotate --extra dev >> requirements.new
	@mv requirements.new requirements.lock

clean:
	rm -rf $(VENV) $(FLOOR) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
