# make test        the tests, run against the installed package
# make test-slow   full-size networks: minutes, and some gigabytes of disk and memory
# make demo        digits drawn with and without speculation, side by side
# make bench-check rounds, ratios and instruction counts beside the committed ones
# make sanitize    the CUDA kernels' tests under compute-sanitizer, on a machine with a GPU
# make fuzz        the ops and their bindings under sanitizers, for a minute; FUZZ_ARGS="--seconds 600"
# make lint        formatting, types, and a build with warnings as errors
#
# Each sets up .venv by itself, with the versions of constraints.txt, and installs the package anew
# when its sources have changed. FREE_CUDA=ON|OFF overrides AUTO, JOBS=1 the tests' two processes.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NVCC := $(shell command -v nvcc 2>/dev/null)
export FREE_CUDA ?= AUTO
# What is tested and run is the installed package, whatever the caller has on the path.
unexport PYTHONPATH

CPP := $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/include/free/*.h \
  benchmarks/*.cpp tests/cuda_shim/*.cpp tests/cuda_shim/*.h)
SOURCES := CMakeLists.txt pyproject.toml constraints.txt LICENSE NOTICE README.md csrc export python

.PHONY: test test-slow demo bench-check sanitize fuzz lint package clean
.DELETE_ON_ERROR:

test: package $(VENV)/.tools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-slow: package $(VENV)/.tools
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/python -m pytest -m slow -s $(PYTEST_ARGS)

# On ONNX Runtime, the fastest measured; the model is exported on the first run. One thread unless told
# otherwise: two wait for each other without end on a machine that is busy.
demo: package $(VENV)/.onnx
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/free sample --model mnist --labels 0-9 --steps 250 --cfg 1.5 --seed 0 \
	  --out digits.png --json report.json --compare
	@echo "The picture is $(CURDIR)/digits.png, the report $(CURDIR)/report.json."

# One thread: what is compared are ratios and counts.
bench-check: package $(VENV)/.tools
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/check.py $(CHECK_ARGS)

# Without torch's caching allocator: every tensor then has bounds that memcheck knows.
sanitize: package $(VENV)/.tools
	@command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not in PATH; it comes with CUDA." >&2; exit 1; }
	@$(BIN)/python -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || \
	  { echo "torch in $(VENV) sees no CUDA device." >&2; exit 1; }
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 1 \
	  $(BIN)/python -m pytest -n 0 tests/gpu/test_kernels.py --timeout 0 -k "not captured and not flat"
	compute-sanitizer --tool racecheck --error-exitcode 1 \
	  $(BIN)/python -m pytest -n 0 tests/gpu/test_kernels.py --timeout 0 -k "agree"

# With the sources' own copy of the core, in the place of the installed one.
fuzz: package $(VENV)/.tools
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" \
	  -DCMAKE_CXX_COMPILER=g++ -DFREE_CUDA=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
	  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -g1"
	$(BIN)/cmake --build build/fuzz
	$(BIN)/python -m tests.fuzz --build build/fuzz $(FUZZ_ARGS)

lint: package $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=python $(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(CPP)
ifeq ($(NVCC),)
	@echo "CUDA sources: not compiled, there is no nvcc in PATH."
endif
	$(BIN)/cmake -S . -B build/lint -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" \
	  -DFREE_WERROR=ON -DFREE_CUDA=$(if $(NVCC),ON,OFF)
	$(BIN)/cmake --build build/lint --clean-first

# By content, so that a removed file counts as a change and a fresh checkout does not.
package: $(VENV)/.build-tools
	@{ echo "FREE_CUDA=$(FREE_CUDA)"; \
	   find $(SOURCES) -type f -not -name '*.pyc' -not -name '*.so' -print0 | sort -z | xargs -0 sha256sum; \
	 } > $(VENV)/.sources
	@cmp -s $(VENV)/.sources $(VENV)/.installed || { \
	   echo "Installing the package (FREE_CUDA=$(FREE_CUDA)) ..."; \
	   $(PIP) install --no-build-isolation -c constraints.txt . && \
	   cp $(VENV)/.sources $(VENV)/.installed; }

$(VENV)/.build-tools: constraints.txt
	@test -x $(BIN)/python || { echo "Creating $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install -c constraints.txt cmake ninja pybind11 scikit-build-core
	@touch $@

$(VENV)/.onnx: constraints.txt $(VENV)/.build-tools
	@$(PIP) install -c constraints.txt onnx onnxruntime-gpu onnxscript
	@touch $@

# LeRobot without what it depends on, which is another torch: tests load its networks' classes alone.
$(VENV)/.tools: constraints.txt $(VENV)/.build-tools
	@echo "Installing what the tests and linters need ..."
	@$(PIP) install -r constraints.txt
	@$(PIP) install --no-deps lerobot==0.4.4
	@touch $@

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache digits.png report.json
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
