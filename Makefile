# Two commands are enough: `make demo` shows the product, `make test` checks the whole tree.
# Everything is installed into .venv; system packages (tests only) need root and Debian or Ubuntu.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: demo test test-all soak fuzz check format system-packages clean

demo: $(VENV)/.demo
	$(BIN)/vedette demo --seconds 40 --out demo-out

test: $(VENV)/.dev system-packages
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check

test-all: $(VENV)/.dev system-packages
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/check --all
	$(MAKE) soak

# longer: make soak MINUTES=600
MINUTES ?= 3
soak: $(VENV)/.dev system-packages
	$(BIN)/python tools/soak.py --minutes $(MINUTES) --out soak-out

# a minute a target; longer: make fuzz FUZZ_SECONDS=3600
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev
	$(BIN)/python tools/fuzz.py --seconds $(FUZZ_SECONDS) --keep fuzz-crashes

check: test

format: $(VENV)/.dev
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

system-packages:
	tools/install_system_packages

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[build,dev,mqtt,plans]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info demo-out soak-out
