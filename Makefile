# `make help` lists the targets.
.DEFAULT_GOAL := check
PYTHON := .venv/bin/python
BUILD := build/native
NATIVE := src/unspool/native

.PHONY: help setup setup-tests native header ui check test live demo bench oracle guest-oracle guests clean man wheel format

help: ## what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-14s %s\n", $$1, $$2 }'

setup: ## install what is missing to build and run (Debian packages, .venv)
	@scripts/setup.sh

setup-tests: ## the same, and the oracles of the tests
	@scripts/setup.sh --tests

native: setup ## compile the C: the BPF object and the library
	@mkdir -p build
	@cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@cmake --build $(BUILD) -- --no-print-directory -s
	@scripts/install-native.sh $(BUILD) $(NATIVE)

header: setup ## write native/stops.h from the names in model/verdict.py
	$(PYTHON) scripts/stops_header.py native/stops.h

ui: setup ## build the web page of `unspool serve` from ui/ (needs node 20 and npm; the built files are committed)
	cd ui && npm ci --silent && npm run --silent build
	$(PYTHON) scripts/page_stamp.py --write

format: setup ## rewrite the Python files in the agreed format
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

check: native ## the quick check: format, lint, types, fast tests, layers, docs
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PYTHON) -m pytest -q -x -m "not live and not slow"

# A busy machine can starve a live test (a sampler that got no CPU); such a test is tried again, and the report says so.
test: setup-tests native ## the whole suite
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PYTHON) -m pytest --durations=15

demo: native ## record a real program, print the report, write a flame graph
	@scripts/demo.sh

bench: setup-tests native ## ratios against peers, with spread
	$(PYTHON) bench/run.py

oracle: setup-tests native ## single-step programs and score every unwinder (30 minutes)
	$(PYTHON) tests/oracle/run.py --write docs/oracle-results.md

guest-oracle: setup-tests ## single-step a guest's kernel and score the walk of its stacks (40 minutes)
	$(PYTHON) tests/oracle/kernel_run.py --write docs/guest-oracle-results.md

man: setup ## completions and the man page, in build/share (a wheel has them)
	$(PYTHON) scripts/shell_files.py build/share

guests: setup-tests native ## several guest kernels, three guests at once, what sampling costs them, KVM (15 minutes)
	$(PYTHON) scripts/guest/matrix.py docs/guest-results.md

wheel: setup ## a wheel with the BPF object and the library inside
	$(PYTHON) -m pip wheel -q --no-deps -w dist .

clean: ## remove what was built
	rm -rf build dist $(NATIVE)/*.so $(NATIVE)/*.o
