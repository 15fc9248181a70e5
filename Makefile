# Thin: the two commands of the README (reproduce, test), and what a contributor needs around them.
# PYTHON=... chooses the interpreter; otherwise the first one that really runs is taken.

VENV := .venv
BIN := $(VENV)/bin
MINIMUM := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))

.PHONY: setup reproduce test test-floor lint format docs lock clean
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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . && \
	touch $@
