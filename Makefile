# Every target sets up what it needs; `make demo` and `make test` work on a fresh machine.
.PHONY: venv demo analyses test test-all lint docs clean

VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu
# A quarter less time in the compiler, and programs that are as fast; see docs/decisions.md.
export XLA_FLAGS ?= --xla_backend_optimization_level=1

venv: $(STAMP)

# Rebuilt when the pins or the packaging change.
$(STAMP): constraints.txt pyproject.toml tools/find-python
	@python="$$(sh tools/find-python)" || exit 1; \
	echo "setting up $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The posterior and its joint maximum on real data, compared, and one page about both.
demo: venv
	@out=runs/demo-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/concord analyse first_posterior --out $$out/first && \
	$(BIN)/concord run digits --backend map --map.num-starts 4 --map.num-warmup 800 \
		--map.num-steps 1000 --out $$out/map && \
	$(BIN)/concord compare $$out/map $$out/first/runs/digits --figure $$out/comparison.png && \
	$(BIN)/concord report $$out/map $$out/first/runs/digits --out $$out/report.html

# All analyses at full size, and their pages; each goes on where it was interrupted.
ANALYSES := bit_ledger head_pairs bits_saved label_errors comparisons routing sensitivity
analyses: venv
	@for name in $(ANALYSES); do \
		$(BIN)/concord analyse $$name --dask local --resume --out runs/analyses/$$name && \
		mkdir -p docs/analyses/$$name && \
		cp runs/analyses/$$name/conclusion.md runs/analyses/$$name/figure.png docs/analyses/$$name/ \
		|| exit 1; \
	done

test: venv
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: venv
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

lint: venv
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: venv
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build
