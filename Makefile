# `make train` does all set-up and runs the main job; `make test` does all set-up and runs the tests.
# The first interpreter that really runs, is new enough and can make an environment (a name on PATH may be an empty shim).
CHECK  := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do $$p -c '$(CHECK)' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
CONFIG ?= configs/quickstart/iflybot_vla.yaml
RUNS   ?= runs/iflybot-quickstart
RUN    := $(VENV)/bin
KERNELS := $(wildcard kernels/setup.* kernels/csrc/*.h kernels/csrc/*/*)
SETUP  := setup.cfg pyproject.toml constraints.txt $(wildcard plugins/*/setup.cfg) $(KERNELS)
BUNDLED := -e kernels $(foreach plugin,$(wildcard plugins/*),-e $(plugin))

.PHONY: help train test slow lint types system clean

help:
	@echo "make train   set up, make the data, train a robot policy, measure it in closed loop, write the report"
	@echo "make test    set up, run the tests (make slow: all of them)"
	@echo "make lint types clean"

train: system $(VENV)/ready
	$(RUN)/mixtura data synth $(CONFIG)
	$(RUN)/mixtura train $(CONFIG) $(if $(wildcard $(RUNS)/config.yaml),--resume)
	@echo "open $(RUNS)/report.html"

test: system $(VENV)/ready-dev
	$(RUN)/python -m pytest -q -m "not slow and not gpu"

slow: system $(VENV)/ready-dev
	$(RUN)/python -m pytest -q -m "not gpu"

lint: $(VENV)/ready-dev
	$(RUN)/ruff check . && $(RUN)/ruff format --check .

types: $(VENV)/ready-dev
	$(RUN)/mypy platform/mixtura kernels/mixtura_splat

# The simulator draws through EGL (software is enough). Installed only when missing, and only by root.
system:
	@ldconfig -p 2>/dev/null | grep -q libEGL.so.1 || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -qy --no-install-recommends libegl1 libgl1 libgl1-mesa-dri libglib2.0-0; \
	  else echo "libEGL.so.1 is missing: install libegl1 libgl1 libgl1-mesa-dri (the simulator needs them)"; fi

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with venv found: install one (Debian: python3-venv) or give PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: $(VENV)/bin/python $(SETUP)
	$(RUN)/pip install -q -c constraints.txt -e . $(BUNDLED)
	@touch $@

$(VENV)/ready-dev: $(VENV)/bin/python $(SETUP)
	$(RUN)/pip install -q -c constraints.txt -e ".[dev]" $(BUNDLED)
	@touch $@ $(VENV)/ready

clean:
	rm -rf build *.egg-info platform/*.egg-info {kernels,plugins/*}/build {kernels,plugins/*}/*.egg-info kernels/mixtura_splat/libraries .pytest_cache .hypothesis .ruff_cache .mypy_cache
