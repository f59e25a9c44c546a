# make demo    Kafka, Triton and the pipeline on this machine (flags: make demo ARGS="--exit --json")
# make test    everything that proves it: style, types, the fence between rooms, tests
# make cover   the tests with line and branch coverage (twice as long)
# make faults  workers, brokers, Triton and the LLM killed, stalled and restarted; then everything is counted (an hour)
# make bench   the speed of the hot path and of the models, and a worker under overload (half an hour)
# PYTHON=...   which Python to build on (3.11 or 3.12; found by itself otherwise)

export VENV := .venv
export PYTHON
BIN := $(VENV)/bin
ARGS :=

.PHONY: demo test cover lint faults bench install clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.for-demo
	@$(BIN)/shunt demo $(ARGS)

# Three at a time, each with a stack of its own: most tests wait for servers more than they compute. Whole files, in
# the order of their collection. Then those that must not run beside others, one after the other.
BESIDE := -n 3 --dist loadfile --no-loadscope-reorder -m "not alone"

test: lint
	$(BIN)/pytest $(BESIDE)
	$(BIN)/pytest -m alone

# Of the workers' processes too (see [tool.coverage] in pyproject.toml).
cover: install
	$(BIN)/pytest $(BESIDE) --cov --cov-report=
	$(BIN)/pytest -m alone --cov --cov-append --cov-report=term

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# Flags: make faults ARGS="--seed 7 --brokers 3 --each 2"
faults: install
	$(BIN)/python -m tests.faults $(ARGS)

# The figures over film reviews need the evaluation texts.
bench: install
	$(BIN)/python benchmarks/codec.py
	$(BIN)/python benchmarks/hot_path.py $(ARGS)
	$(BIN)/python -m benchmarks.llm_lane
	$(BIN)/python -m benchmarks.many_partitions
	$(BIN)/python -m benchmarks.overload
	@if [ -n "$$SHUNT_DATA" ]; then \
	  $(BIN)/python -m benchmarks.fast_model && $(BIN)/python benchmarks/half_b.py && \
	  $(BIN)/python benchmarks/spending.py; \
	else echo "SHUNT_DATA is not set: fast_model, half_b and spending are left out" >&2; fi

install: $(VENV)/.for-work

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .pytest_cache .ruff_cache .hypothesis

# What is installed is remembered, so that the second `make demo` starts at once.
$(VENV)/.for-demo: pyproject.toml constraints.txt
	@tools/install local,cpu
	@touch $@

$(VENV)/.for-work: pyproject.toml constraints.txt
	@tools/install local,cpu,dev
	@touch $@ $(VENV)/.for-demo
