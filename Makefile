PYTHON ?= python3
WORKERS ?= auto
# What the tests of training run with. Plain "torch" may mean a build for GPUs of several gigabytes.
TORCH ?= torch==2.13.0

VENV := .venv
DEMO_VENV := .venv-demo
PIP := -m pip install --quiet --disable-pip-version-check
SAMPLES := mlp cnn lstm transformer

.PHONY: help demo test test-full test-matrix check fix bench clean

help:
	@echo "make demo   quantize the four sample models into build/demo/, one of them with calibration"
	@echo "make test   run the tests"
	@echo "make test-full  the same and all of tests/hardening, which takes most of an hour"
	@echo "make test-matrix  the same on old and new Pythons and packages"
	@echo "make check  lint, format and types, nothing is changed"
	@echo "make fix    lint and format, files are changed"
	@echo "make bench  say how the benchmarks are run"
	@echo "make clean  remove everything that make has made"

# Each environment is made once, and again when the dependencies change. The package is installed
# editable, so a changed source needs no new installation.
$(VENV)/installed: pyproject.toml
	@echo "installing onnxq with its development tools into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python $(PIP) '$(TORCH)'
	@$(VENV)/bin/python $(PIP) -e '.[dev,qat]'
	@touch $@

$(DEMO_VENV)/installed: pyproject.toml
	@echo "installing onnxq into $(DEMO_VENV)"
	@$(PYTHON) -m venv $(DEMO_VENV)
	@$(DEMO_VENV)/bin/python $(PIP) -e .
	@touch $@

demo: $(DEMO_VENV)/installed
	@mkdir -p build/demo
	@set -e; for model in $(SAMPLES); do \
	  echo "$$ onnxq dynamic sample_models/$$model.onnx --data calib_data/$$model/eval" \
    "-o build/demo/$$model.int8.onnx --force"; \
	  $(DEMO_VENV)/bin/onnxq dynamic sample_models/$$model.onnx --data calib_data/$$model/eval \
	    -o build/demo/$$model.int8.onnx --force; \
	done
	@echo "$$ onnxq static sample_models/cnn.onnx --calib calib_data/cnn/calib" \
	  "-o build/demo/cnn.static.onnx --force"
	@$(DEMO_VENV)/bin/onnxq static sample_models/cnn.onnx --calib calib_data/cnn/calib \
	  -o build/demo/cnn.static.onnx --force

# Workers start in different places and take over from each other at the end, so that fixtures of a
# module are mostly made once. Tests start processes, which would each compile the sources anew
# where Python is told not to keep byte code.
PYTEST = $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal

test: $(VENV)/installed
	@$(VENV)/bin/python -m compileall -q onnxq
	@$(PYTEST)

test-full: $(VENV)/installed
	@$(VENV)/bin/python -m compileall -q onnxq
	@$(PYTEST) -m "full or not full"

# Environments of their own, made once, in build/matrix. ONLY=3.10-lowest,3.13-newest for some.
test-matrix:
	@$(PYTHON) tests/matrix.py $(if $(ONLY),--only $(ONLY)) -- -n $(WORKERS)

check: $(VENV)/installed
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/python docs/generate_cli.py --check

fix: $(VENV)/installed
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format --quiet .
	@$(VENV)/bin/python docs/generate_cli.py

bench:
	@echo "The benchmarks take minutes and some need downloads, so they are run one by one."
	@echo "Each says what it measures and needs, with --help:"
	@for script in benchmarks/*.py; do \
	  if grep -qs "__main__" $$script; then echo "  python $$script --help"; fi; \
	done

clean:
	@rm -rf $(VENV) $(DEMO_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
