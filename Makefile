# Two commands: `make demo` and `make test`. Both build their environment in .venv first.
# What each tier of the tests holds: docs/testing.md.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := runs/demo
DEMO_FLAGS :=
PYTEST := $(RUN) pytest -n auto --durations 25
PYTEST_FLAGS :=

.PHONY: demo test test-ci test-night lint wheel-test clean

# The environment is rebuilt when what it is made from changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e '.[all]'
	touch $@

$(VENV)/.developed: requirements-dev.txt $(VENV)/.installed
	$(INSTALL) -r requirements-dev.txt
	touch $@

# Train on the built-in heads, draw sixteen images, and say where the picture is.
demo: $(VENV)/.installed
	$(RUN) ssmdiff train --preset tiny --out $(DEMO) --overwrite $(DEMO_FLAGS)
	$(RUN) ssmdiff sample $(DEMO) --n 16 --out $(DEMO)/images --overwrite
	@echo "the picture: $(CURDIR)/$(DEMO)/images/grid.png"

# Minutes: after every change.
test: $(VENV)/.developed
	$(PYTEST) -m "not slow and not night" $(PYTEST_FLAGS)

# All but the night tier: before every push, by .ci/run.
test-ci: $(VENV)/.developed
	$(PYTEST) -m "not night" $(PYTEST_FLAGS)

# The rest: before a branch lands.
test-night: $(VENV)/.developed
	$(PYTEST) -m night $(PYTEST_FLAGS)

lint: $(VENV)/.developed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports

# What the wheel does where no extra is installed. It samples the run that `make demo` has left.
wheel-test: $(VENV)/.developed
	rm -rf dist .venv-wheel
	$(RUN) build --wheel --quiet
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		dist/*.whl
	.venv-wheel/bin/python .ci/wheel.py $(DEMO)

clean:
	rm -rf $(VENV) .venv-wheel dist build runs
