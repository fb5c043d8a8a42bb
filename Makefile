# Two commands do everything on a bare Debian machine with Python 3.11 or newer:
#   make quickstart   scenes -> two trained arms -> soundtracks -> report
#   make test         lint and the test suite
# Both create .venv and install what they need; nothing is done twice.
# PYTHON=python3.12 chooses another interpreter for .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
OUT ?= runs/quickstart
# Test files are dealt to this many processes, in their order: those with the
# fewest tests are not the shortest, and must not come last.
JOBS ?= 2

# Networks for the evaluation, where they lie beside the checkout.
V2A_WEIGHTS ?= $(wildcard $(abspath ../shared/weights))
export V2A_WEIGHTS

# Root, or sudo without a password, may install Debian packages.
APT = $$([ "$$(id -u)" = 0 ] || echo "sudo -n") env DEBIAN_FRONTEND=noninteractive apt-get -qq

.PHONY: quickstart test soak lint format install browser parity tpu clean
.DEFAULT_GOAL := quickstart

quickstart: install
	@$(BIN)/python -m launch.quickstart --out $(OUT)

test: install parity tpu browser lint
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	  --durations 25

# Kills, full disks and damaged files by the hundred; it takes hours.
# SHARE=0.1 does a tenth of the rounds.
soak: install
	@$(BIN)/python -m tests.soak $(SHARE)

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

install: $(VENV)/.installed

# Debian keeps ensurepip in a package of its own, so the first attempt can fail.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || \
	  { echo "installing Debian's python3-venv"; \
	    { $(APT) update && $(APT) install -y python3-venv; } >/dev/null && \
	    $(PYTHON) -m venv --clear $(VENV); } || \
	  { rm -rf $(VENV); \
	    echo "no venv module: apt-get install python3-venv, then again"; exit 1; }

$(VENV)/.installed: setup.py constraints.txt | $(BIN)/python
	@echo "installing packages into $(VENV): about a minute, 1.5 GB"
	@$(PIP) install -e '.[eval,dev]' -c constraints.txt
	@touch $@

# The CPU build only: the default one brings gigabytes of CUDA. Without it the
# tests that compare ports with their references skip and say so.
REFERENCES := 'torch==2.13.0+cpu' transformers pillow
parity: $(VENV)/.parity
$(VENV)/.parity: $(VENV)/.installed
	@echo "installing torch (CPU) and transformers, for the parity tests"
	@$(PIP) install --retries 0 $(REFERENCES) -c constraints.txt 2>/dev/null || \
	  $(PIP) install --retries 0 $(REFERENCES) -c constraints.txt \
	    --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null || \
	  echo "no CPU build of torch found: parity tests will skip"
	@$(PIP) install --retries 0 ai-edge-litert -c constraints.txt 2>/dev/null || \
	  echo "no TensorFlow Lite found: its test will skip"
	@$(PIP) install --retries 0 pesq -c constraints.txt 2>/dev/null || \
	  echo "no PESQ, which needs a C compiler: its test will skip"
	@touch $@

# The compiler for TPUs, in a folder of its own: JAX would look for TPUs on any
# machine where it lies among the packages. Without it its tests skip.
tpu: $(VENV)/.tpu
$(VENV)/.tpu: $(VENV)/.installed
	@$(PIP) install --no-deps --target $(VENV)/plan 'libtpu==0.0.42.*' 2>/dev/null || \
	  echo "no libtpu found: tests that compile for TPUs will skip"
	@touch $@

# The report is opened in a real browser; without one that test skips.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	  { command -v apt-get >/dev/null && echo "installing chromium" && \
	    $(APT) update >/dev/null 2>&1 && \
	    $(APT) install -y chromium chromium-driver >/dev/null 2>&1; } || \
	  echo "chromium not installed: the browser test will skip"

clean:
	@rm -rf $(VENV) build dist *.egg-info
