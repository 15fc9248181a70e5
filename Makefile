# Thin: the two commands of the README (reproduce, test), and what a contributor needs around them.
# PYTHON=... chooses the interpreter; otherwise the first one that really runs is taken.

VENV := .venv
BIN := $(VENV)/bin
MINIMUM := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))

FLOOR := .venv-floor
FLOOR_JAX := 0.11.2
AOT := .venv-aot
AOT_RECORD := experiments/results/bench/compile-kernels.json
STEPS_RECORD := experiments/results/bench/compile-steps.json
ROW := sparse_vd.table1.lenet-300-100
TEST := -m pytest -q -n auto --dist worksteal
# Which of the slow tests: all, or with SLICE=3/10 some; none is started after SLOW_SECONDS.
SLICE :=
SLOW_SECONDS :=
SLOW := $(if $(SLICE),--slow-slice $(SLICE)) $(if $(SLOW_SECONDS),--slow-budget $(SLOW_SECONDS))
# What depends on JAX's version: kernels, layers, a step of training, values and gradients of small networks.
CORE := $(addprefix tests/,kernels layers variational halting perforation ensembling training models/test_invariants.py)
TRACED := test_shapes_and_dtypes or test_counts_agree
PIP := -m pip install -qq --disable-pip-version-check

.PHONY: help setup reproduce test test-slow test-floor compile-kernels compile-steps lint format docs notebooks lock clean
.DEFAULT_GOAL := help

help:
	@echo "make reproduce      train LeNet-300-100 on MNIST, dense and sparse; show the paper's row beside ours"
	@echo "make test           run the tests"
	@echo "make setup          only make $(VENV)"
	@echo "make test-slow      run the slow tests too; SLICE=3/10 for a tenth of them"
	@echo "make lint           ruff, pyright and the directions of imports"
	@echo "make test-floor     kernels and core on the oldest supported JAX"
	@echo "make compile-kernels  compile the Pallas kernels for an H100, a TPU v5e and a v6e, none needed"
	@echo "make compile-steps  compile ResNet-50 training steps for four TPU v5e and four H100, none needed"
	@echo "make docs           render the documents again from the records, and build the site from them"
	@echo "make notebooks      execute the notebooks"
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
	echo "setting up $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV) && \
	$(BIN)/python $(PIP) -r requirements.lock && \
	$(BIN)/python $(PIP) --no-deps --no-build-isolation -e . && \
	touch $@

reproduce: setup
	@$(BIN)/adaptive-nets run $(ROW)-original
	@$(BIN)/adaptive-nets run $(ROW)-sparse
	@$(BIN)/adaptive-nets table $(ROW) --results runs
	@$(BIN)/adaptive-nets report $(ROW) --results runs --out report.html
	@echo "      $(BIN)/adaptive-nets predict docs/digit.png --run runs/$(ROW)-sparse/quick"

test: setup
	@$(BIN)/python $(TEST)

test-slow: setup
	@$(BIN)/python $(TEST) -m slow $(SLOW)

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
	@$(FLOOR)/bin/python $(TEST) -m core -k "not ($(TRACED))" $(CORE)

# JAX as locked with the compilers of the accelerators: 140 MB each to download, 1.6 GB on disk.
$(AOT)/.ready: $(VENV)/.ready
	@echo "setting up $(AOT) with the compilers for CUDA and TPU"
	@$(BIN)/python -m venv --clear $(AOT)
	@$(AOT)/bin/python $(PIP) \
	  $$(grep -E '^(jax|jaxlib|jaxtyping|numpy|ml.dtypes|opt.einsum|scipy|wadler.lindig)==' requirements.lock)
	@version=$$(sed -n 's/^jax==//p' requirements.lock) && \
	  $(AOT)/bin/python $(PIP) --no-deps jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version && \
	  $(AOT)/bin/python $(PIP) --no-deps "$$($(AOT)/bin/python -c 'import importlib.metadata as m; \
	    print(next(r.split(";")[0] for r in m.requires("jax") if r.startswith("libtpu")))')"
	@touch $@

compile-kernels: $(AOT)/.ready
	@$(AOT)/bin/python -m kernels.aot --out $(AOT_RECORD)

# The compilers' environment has JAX alone; the rest is taken from the other one.
compile-steps: $(AOT)/.ready
	@PYTHONPATH="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'):$(CURDIR)" \
	  $(AOT)/bin/python -m experiments.bench.compile_steps --out $(STEPS_RECORD)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo --no-cache

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup
	@$(BIN)/adaptive-nets docs
	@$(BIN)/python docs/site/build.py
	@echo "the site: site/index.html"

notebooks: setup
	@$(BIN)/python -m experiments.notebooks

# Without the project's own line, hashes and registry; the first line says where the file is from.
lock: setup
	@head -1 requirements.lock > requirements.new
	@uv export -q --python $(BIN)/python --format requirements-txt --no-hashes --no-emit-project \
	  --no-header --no-annotate --extra dev >> requirements.new
	@mv requirements.new requirements.lock

clean:
	rm -rf $(VENV) $(FLOOR) $(AOT) build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
