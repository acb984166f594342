# Every command makes .venv once and again only when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of make test: processes, each on one thread; "auto" is one a core, fewer by hand where they share one small GPU.
JOBS ?= auto
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(JOBS) --dist worksteal

.PHONY: demo test test-slow test-timm lint bench bench-data bench-dispatch bench-plots gpu cards hub-kernels zoo zoo-status clean

demo: $(VENV)/.cli
	$(BIN)/seattn demo

test: $(VENV)/.test
	$(PYTEST) $(PARALLEL)

test-slow: $(VENV)/.test
	$(PYTEST) $(PARALLEL) -m slow

# timm's own tests of models, on every net of this package; pip fetches them, or TIMM_SCRIPTS names a checkout of timm.
test-timm: $(VENV)/.test
	$(BIN)/python tests/run_timm_suite.py $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:kernels $(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run

# Images per second of each data path; DATA_DIR=… for an image folder of 32 x 32 images instead of the packaged sample.
bench-data: $(VENV)/.cli
	$(BIN)/python -m benchmarks.speed.data $(if $(DATA_DIR),--data-dir $(DATA_DIR))

# What a call of each op costs on the host; prints a table, keeps no rows.
bench-dispatch: $(VENV)/.test
	$(PYTEST) benchmarks/speed/dispatch.py -q --benchmark-warmup=on --benchmark-warmup-iterations=20 \
		--benchmark-max-time=0.3 --benchmark-columns=median,iqr,rounds --benchmark-time-unit=us --benchmark-sort=name

bench-plots: $(VENV)/.cli
	$(BIN)/python -m benchmarks.plots

# Correctness, the sanitizer and every benchmark in eight minutes, into the folder GPU_OUT; exit code 2 without a GPU.
gpu: $(VENV)/.test
	$(BIN)/python -m benchmarks.gpu

# The trainings of zoo_configs/queue.yaml, stopped and started at any time; DATA=… holds cifar10/train/CLASS/IMAGE and so
# on, OUT=… keeps the runs (runs/zoo), JOBS=… trainings at once (one a core).
ZOO := $(BIN)/python -m benchmarks.zoo $(if $(OUT),--out $(OUT))
zoo: $(VENV)/.cli
	$(ZOO) $(if $(DATA),--data $(DATA)) $(if $(filter-out auto,$(JOBS)),--jobs $(JOBS))

zoo-status: $(VENV)/.cli
	@$(ZOO) --status

cards: $(VENV)/.cli
	$(BIN)/python -m benchmarks.render

# Squeeze-excite as Hugging Face's package `kernels` loads it; FOLDER=… for another folder, ARGS="--version 1".
hub-kernels: | $(BIN)/python
	$(BIN)/python kernels/hub/stage.py $(or $(FOLDER),build/hub-kernels) $(ARGS)

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "seattn needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# .cli, .test and .lint mark which extras are there; each has those of the one before.
$(VENV)/.cli $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@
