# Every target does the set-up it needs.  Wanted beforehand: Python >= 3.11, gcc and make.
#   PYTHON      the Python that runs the set-up and, for test-gil, the tests
#   AME_PYTHON  the Python to use instead of a free-threaded one that the set-up finds or builds
#   ARGS        arguments for pytest, the demo or the benchmark

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; \
	done || echo python3)
endif
ifeq ($(origin CC),default)
CC := gcc
endif

BOOTSTRAP := $(PYTHON) scripts/bootstrap.py
VENV := .venv/bin
CORE_FLAGS := -std=c11 -D_GNU_SOURCE -Icsrc/core -Wall -Wextra -Wconversion -Wshadow -Werror
SANITIZE_FLAGS := -std=c11 -D_GNU_SOURCE -Icsrc/core -O1 -g -pthread
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-gil demo test test-gil lint typecheck sanitize bench clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv: find or build a free-threaded Python, install the project
	@$(BOOTSTRAP)

setup-gil: ## make .venv-gil: the same with the running Python and its GIL
	@$(BOOTSTRAP) --gil

demo: setup ## index the standard library in parallel and compare with the plain loop
	$(VENV)/python -m ame demo $(ARGS)

test: setup ## the tests, on the free-threaded Python
	$(VENV)/python -m pytest $(ARGS)

test-gil: setup-gil ## the same tests, on the running Python
	.venv-gil/bin/python -m pytest $(ARGS)

lint: setup ## ruff, clang-format, and the C core with all warnings as errors
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/clang-format --dry-run --Werror csrc/*/*.[ch] tests/c/*.c
	$(CC) $(CORE_FLAGS) -fsyntax-only csrc/core/*.c

typecheck: setup ## mypy --strict
	$(VENV)/mypy --strict stm ame

sanitize: ## the C core under threads, with ThreadSanitizer and with ASan + UBSan
	@mkdir -p build
	$(CC) $(SANITIZE_FLAGS) -fsanitize=thread tests/c/stress_core.c csrc/core/*.c -o build/stress_tsan
	setarch -R build/stress_tsan
	$(CC) $(SANITIZE_FLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all \
		tests/c/stress_core.c csrc/core/*.c -o build/stress_asan
	build/stress_asan

bench: setup ## what each operation costs
	$(VENV)/python benchmarks/costs.py $(ARGS)

clean: ## remove what was built
	rm -rf build *.egg-info stm/_core*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ame stm tests stress benchmarks examples scripts -name __pycache__ -type d \
		-exec rm -rf {} + 2>/dev/null || true

distclean: clean ## remove both environments as well
	rm -rf .venv .venv-gil
