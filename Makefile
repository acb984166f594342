# The first command creates .venv; later commands update it only after pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes of make test, each with one thread: "auto" is one for each core; give fewer where they share a small GPU.
JOBS ?= auto
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(JOBS) --dist worksteal

.PHONY: demo test test-slow test-timm lint docs bench bench-data bench-deploy bench-dispatch bench-plots floors gpu cards hub-kernels zoo zoo-status clean

demo: $(VENV)/.cli
	$(BIN)/seattn demo

test: $(VENV)/.test
	$(PYTEST) $(PARALLEL)

test-slow: $(VENV)/.test $(VENV)/.examples
	$(PYTEST) $(PARALLEL) -m slow

# Runs timm's own model tests on every net of this package. pip downloads them unless TIMM_SCRIPTS names a checkout.
test-timm: $(VENV)/.test
	$(BIN)/python tests/run_timm_suite.py $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:kernels $(BIN)/lint-imports

# The reference of the Python API, in build/docs.
docs: $(VENV)/.docs
	$(BIN)/python -m benchmarks.docs

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run --compile

# Images per second of each data path. DATA_DIR=… names a folder of 32 x 32 images; the default is the packaged sample.
bench-data: $(VENV)/.cli
	$(BIN)/python -m benchmarks.speed.data $(if $(DATA_DIR),--data-dir $(DATA_DIR))

# Exported nets against PyTorch with two threads, twelve minutes. DATA_DIR=… is CIFAR-10; ARGS="--net NAME" times one net.
bench-deploy: $(VENV)/.test
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.deploy.run --data-dir $(or $(DATA_DIR),$(error give DATA_DIR=…)) $(ARGS)

# The time of one call of each op, of a block and of a net on the host. Prints a table and writes no rows.
bench-dispatch: $(VENV)/.test
	$(PYTEST) benchmarks/speed/dispatch.py -q --benchmark-warmup=on --benchmark-warmup-iterations=20 \
		--benchmark-max-time=0.3 --benchmark-columns=median,iqr,rounds --benchmark-time-unit=us --benchmark-sort=name

bench-plots: $(VENV)/.cli
	$(BIN)/python -m benchmarks.plots

# The least times of all kernels on GPUs that need not be here, from their compiled code, and the launches of a block,
# then the tables of kernels/README.md. Nothing is timed.
floors: $(VENV)/.test
	$(BIN)/python -m benchmarks.floors
	$(BIN)/python -m benchmarks.render

# The GPU tests, the sanitizer and every benchmark in eight minutes; the results are in the folder GPU_OUT. Exit code 2
# without a GPU. DRY=1 rehearses it without one, on tiny shapes in Triton's interpreter.
gpu: $(VENV)/.test
	$(BIN)/python -m benchmarks.gpu $(if $(DRY),--dry)

# The trainings of zoo_configs/queue.yaml, which can be stopped and restarted at any time. DATA=… is the folder with
# cifar10/train/CLASS/IMAGE and the other data, OUT=… the folder of the runs (runs/zoo), JOBS=… the number of cores to
# train on (all), NICE=… the priority, from 0 (normal) to 19 (lowest, the default: beside other work the trainings get
# almost no time).
ZOO := $(BIN)/python -m benchmarks.zoo $(if $(OUT),--out $(OUT))
zoo: $(VENV)/.cli
	$(ZOO) $(if $(DATA),--data $(DATA)) $(if $(filter-out auto,$(JOBS)),--jobs $(JOBS)) $(if $(NICE),--nice $(NICE))

zoo-status: $(VENV)/.cli
	@$(ZOO) --status

cards: $(VENV)/.cli
	$(BIN)/python -m benchmarks.render

# Writes squeeze-excite in the form that Hugging Face's package `kernels` loads. FOLDER=… names another folder;
# ARGS="--version 1" sets the version.
hub-kernels: | $(BIN)/python
	$(BIN)/python kernels/hub/stage.py $(or $(FOLDER),build/hub-kernels) $(ARGS)

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "seattn needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# These files record which extras are installed: .cli is a part of all others, .docs of .test, and .test of .lint.
$(VENV)/.cli $(VENV)/.docs $(VENV)/.examples $(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@
