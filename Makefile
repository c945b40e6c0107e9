# Every target sets up what it needs; `make demo` and `make test` work on a fresh machine.
.PHONY: venv demo test test-all lint docs clean

VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu

venv: $(STAMP)

# Rebuilt when the pins or the packaging change.
$(STAMP): constraints.txt pyproject.toml tools/find-python
	@python="$$(sh tools/find-python)" || exit 1; \
	echo "setting up $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv
	$(BIN)/concord analyse first_posterior --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: venv
	$(BIN)/python -m pytest -n 2

test-all: venv
	$(BIN)/python -m pytest -n 2 -m "slow or not slow"

lint: venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: venv
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build
