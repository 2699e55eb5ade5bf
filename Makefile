# Two commands: `make demo` runs an inspection line, `make test` passes the tests.
PYTHON ?= python3
PARTS ?=
DATA ?= demo-parts
TESTS ?=
RUNTIME := .venv
DEV := .venv-dev

# The tests start hundreds of processes, which else would all compile the same modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-plc test test-peers test-benchmarks test-lowest train-tools check demo-bundle clean

demo: $(RUNTIME)/.installed
	@$(RUNTIME)/bin/inspector demo $(if $(PARTS),--parts $(PARTS))

# A station, a Modbus bridge and a simulated PLC; it ends by itself.
demo-plc: $(RUNTIME)/.installed
	@$(RUNTIME)/bin/inspector demo-plc $(if $(PARTS),--parts $(PARTS))

# inspector-model and what it needs, into .venv-dev.
train-tools: $(DEV)/.installed

test: $(DEV)/.installed
	$(DEV)/bin/python -m pytest --numprocesses auto --ignore=tests/benchmarks $(TESTS)

# Tests with other makers' programs, which .ci/peers installs; one that is missing is a failure here.
test-peers: $(DEV)/.installed
	@bash .ci/peers
	REQUIRE_PEERS=1 $(DEV)/bin/python -m pytest -m peers

# The benchmarks' own tests (that each measures what it says, and can fail), and the longest others.
test-benchmarks: $(DEV)/.installed
	$(DEV)/bin/python -m pytest --numprocesses logical -m "benchmarks or long"

# The quick tests with every dependency at the lowest version that pyproject.toml declares.
test-lowest: $(DEV)/.installed
	$(DEV)/bin/python .ci/lowest

check: $(DEV)/.installed
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	$(DEV)/bin/python docs/house.py check
	$(DEV)/bin/python docs/plc/draw.py check

# Draws its own parts, trains, evaluates and exports: the bundle `make demo` runs.
demo-bundle: $(DEV)/.installed
	rm -rf $(DATA) runs/demo
	$(DEV)/bin/inspector simulate $(DATA) --good 150 --test-good 40 --defective 60 --seed 1
	$(DEV)/bin/inspector-model train $(DATA) -o runs/demo --config config/demo-train.yaml
	$(DEV)/bin/inspector-model evaluate runs/demo
	$(DEV)/bin/inspector-model export runs/demo -o config/demo.onnx --name flange --precision fp32

$(RUNTIME)/.installed: pyproject.toml
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/python -m pip install --quiet --upgrade pip
	$(RUNTIME)/bin/python -m pip install --quiet --editable '.[modbus,console]'
	touch $@

$(DEV)/.installed: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --upgrade pip
	@echo 'installing the training tools: torch is a download of some GB, a few minutes'
	$(DEV)/bin/python -m pip install --quiet --editable '.[train,openvino,modbus,opcua,mqtt,console]' --requirement requirements-dev.txt
	touch $@

clean:
	rm -rf $(RUNTIME) $(DEV) .venv-lowest demo-output $(DATA) runs build *.egg-info
