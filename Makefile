# Two commands: `make demo` and `make test`. Both build their environment in .venv first.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := runs/demo
DEMO_FLAGS :=
PYTEST_FLAGS :=

.PHONY: demo test lint wheel-test clean

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
	$(RUN) ssmdiff sample $(DEMO) --n 16 --steps 50 --out $(DEMO)/images --overwrite
	@echo "the picture: $(CURDIR)/$(DEMO)/images/grid.png"

test: $(VENV)/.developed
	$(RUN) pytest -n auto $(PYTEST_FLAGS)

lint: $(VENV)/.developed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports

# The suite against the built wheel, in an environment of its own.
wheel-test: $(VENV)/.developed
	rm -rf dist .venv-wheel
	$(RUN) build --wheel --quiet
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-r requirements-dev.txt "$$(ls dist/*.whl)[all]"
	.venv-wheel/bin/python -m pytest -n auto $(PYTEST_FLAGS)

clean:
	rm -rf $(VENV) .venv-wheel dist build runs
