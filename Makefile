# `make quickstart` and `make test` do all set-up on a fresh machine of Debian 12, 13 or sid.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SCALE ?= 20
PYTEST_ARGS ?=
BENCH_ARGS ?=

NATIVE_SOURCES := $(shell find native/core native/python native/bench -name '*.[ch]') \
                  $(wildcard native/postgres/shim/grpc_stream.[ch] native/postgres/shim/transport.[ch]) CMakeLists.txt
SHIM_SOURCES := $(shell find native/postgres -name '*.[ch]' ! -name '*.pb-c.*') \
                $(wildcard native/postgres/Makefile native/postgres/*/Makefile) proto/pagestore/v1/page.proto

.PHONY: quickstart test test-quick check check-native pytest setup deps proto bench wheel clean

quickstart: setup
	@$(BIN)/python -m pagestore.cli.tour --scale $(SCALE)

test: setup check check-native pytest

# For every edit: what needs neither Postgres nor a stack, on two cores within 90 seconds.
test-quick: $(VENV)/.native check
	$(BIN)/pytest tests/unit -q -n 2 --dist worksteal $(PYTEST_ARGS)

setup: deps $(VENV)/.native build/.shim

deps:
	@tools/install-debian-packages

$(VENV)/.python: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet scikit-build-core
	$(BIN)/python tools/list-requirements.py > $(VENV)/requirements.txt
	$(BIN)/pip install --quiet -r $(VENV)/requirements.txt
	@touch $@

$(VENV)/.native: $(VENV)/.python $(NATIVE_SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

build/.shim: $(SHIM_SOURCES)
	@mkdir -p build
	@echo "Building the Postgres modules"
	@$(MAKE) -s -C native/postgres > build/shim.log 2>&1 || { cat build/shim.log; exit 1; }
	@touch $@

# Generated code is committed; `check` fails when it is not what protoc makes of proto/.
proto: $(VENV)/.python
	$(BIN)/python tools/generate-proto.py

check: $(VENV)/.native
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate-proto.py --check
	$(BIN)/python tools/check-style.py

check-native:
	@cmake -S . -B build/sanitize -G Ninja -DPAGESTORE_SANITIZE=ON -DPAGESTORE_PYTHON=OFF \
	    -DPAGESTORE_TESTS=ON -DCMAKE_BUILD_TYPE=Debug > /dev/null
	cmake --build build/sanitize
	ctest --test-dir build/sanitize --output-on-failure

# A file's tests stay together: they share a stack.
pytest: $(VENV)/.native build/.shim
	$(BIN)/pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# Figures mean something only on a machine that does nothing else.
bench: setup
	$(BIN)/pagestore bench --results bench-results $(BENCH_ARGS)

# The whole, for this distribution's Python and Postgres, and the client alone, for any machine.
# What the whole links to (libpq, OpenSSL, LZ4, zstd) is the distribution's, as its Postgres is: so it
# is no manylinux wheel, and one built on Debian 12 is for Debian 12.
wheel: setup
	@rm -rf dist && mkdir dist
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist \
	    --config-settings=cmake.define.PAGESTORE_MODULES=ON --config-settings=build-dir=build/dist .
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist tools/client
	@ls dist

clean:
	rm -rf build dist $(VENV)
	$(MAKE) -C native/postgres clean
