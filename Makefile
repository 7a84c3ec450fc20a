# Everything that is done locally. `make help` lists it.

PYTHON = python3
DATA_DIR = .agentmem
PORT = 50051
N = 2
DATASET =
OUT =
WORKERS = 3
CALL = search_hybrid
HOST =
LOAD =
LOADER = $(BIN)/python -m agentmem.bench load
ONLY =
SECONDS = 600
TOLERATE =
ROUNDS =

BIN := .venv/bin
STAMP := .venv/.installed
PROTOS := $(wildcard protos/agentmem/v1/*.proto)
SERVICE_PROTOS = $(shell grep -l '^service ' $(PROTOS))

# Annoy's own flags include -ffast-math, which breaks its infinities.
export ANNOY_COMPILER_ARGS = -O3,-march=native,-std=c++14,-DANNOYLIB_MULTITHREADED_BUILD
# Keeps buf's cache inside the clone.
export BUF_CACHE_DIR = $(CURDIR)/.venv/buf-cache

comma := ,

# need COMMAND,WHAT IS MISSING AND HOW TO GET IT
need = { $(1); } >/dev/null 2>&1 || { echo "AgentMem needs $(2)" >&2; exit 1; }

# install ARGUMENTS: uv where it is there and works (it does not read pip's configuration), else pip.
install = if command -v uv >/dev/null 2>&1; then \
	    uv pip install --quiet --python $(BIN)/python $(1) && exit 0; \
	    echo "uv could not install this; trying pip" >&2; \
	  fi; \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check $(1)

# generate FOLDER: the Python code of the protos
define generate
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I protos \
	  --python_out=$(1) --pyi_out=$(1) $(PROTOS)
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I protos \
	  --grpc_python_out=$(1) --mypy_grpc_out=$(1) $(SERVICE_PROTOS)
endef

.PHONY: help venv run replicas status stop demo bench soak report bench-quick bench-baseline load crash chaos \
  streams churn recall plans test check format protos clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: N=$(N) DATA_DIR=$(DATA_DIR) PORT=$(PORT) PYTHON=$(PYTHON); demo, bench: DATASET=<folder>"
	@echo "demo: OUT=<file>; bench: ONLY=<part>; soak: SECONDS=$(SECONDS)"

venv: $(STAMP) ## create .venv with the pinned packages and the project itself

$(STAMP): requirements.lock pyproject.toml
	@$(call need,$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3$(comma) 11))',Python 3.11 or newer: install it and name it with make PYTHON=<python>)
	@$(call need,$(PYTHON) -c 'import ensurepip$(comma) venv',Python's venv module: install python3-venv (Debian/Ubuntu: apt install python3-venv))
	@$(call need,command -v $${CXX:-g++} || command -v c++,a C++ compiler to build annoy: install g++ (Debian/Ubuntu: apt install g++))
	@$(call need,test -f "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h",Python's headers to build annoy: install python3-dev (Debian/Ubuntu: apt install python3-dev))
	$(PYTHON) -m venv .venv
	@echo "installing the packages of requirements.lock"
	@$(call install,--no-deps $$(grep '^setuptools==' requirements.lock))
	@$(call install,--no-deps --no-build-isolation --no-cache-dir --no-binary annoy $$(grep '^annoy==' requirements.lock))
	@$(call install,--no-deps --no-build-isolation -r requirements.lock)
	@$(call install,--no-deps --no-build-isolation --editable .)
	@touch $(STAMP)

run: $(STAMP) ## start one writer and N replicas with sample data, until Ctrl-C
	$(BIN)/agentmem up --replicas $(N) --data-dir "$(DATA_DIR)" --port $(PORT) --sample

replicas: $(STAMP) ## bring the running cluster to N replicas
	$(BIN)/agentmem scale $(N) --data-dir "$(DATA_DIR)"

status: $(STAMP) ## show the nodes of the running cluster
	@$(BIN)/agentmem status --target 127.0.0.1:$(PORT)

stop: $(STAMP) ## stop everything that runs in DATA_DIR
	$(BIN)/agentmem down --data-dir "$(DATA_DIR)"

demo: $(STAMP) ## ask the questions of DATASET (default: the sample), print recall and MRR, write them to OUT
	$(BIN)/python bench/demo.py --data-dir "$(DATA_DIR)" $(if $(DATASET),--dataset "$(DATASET)") $(if $(OUT),--out "$(OUT)")

bench: $(STAMP) ## measure everything into reports/bench.json (17 minutes); ONLY=search: one part
	$(BIN)/python -m agentmem.bench suite $(foreach part,$(ONLY),--only $(part)) $(if $(DATASET),--dataset "$(DATASET)")

soak: $(STAMP) ## a mixed load of SECONDS into reports/soak.json: memory, files, threads and lag over time
	$(BIN)/python -m agentmem.bench suite --only soak --soak-seconds $(SECONDS) --out reports/soak.json \
	  $(if $(DATASET),--dataset "$(DATASET)")

report: $(STAMP) ## make reports/performance_report.md and .html of what bench and soak measured
	$(BIN)/python -m agentmem.bench report

bench-quick: $(STAMP) ## in a minute or two, whether calls have become dearer than bench/baseline.json says
	$(BIN)/python -m agentmem.bench quick $(if $(TOLERATE),--tolerate $(TOLERATE)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-baseline: $(STAMP) ## record a new bench/baseline.json, on a machine that is quiet (some minutes)
	$(BIN)/python -m agentmem.bench quick --record 5

crash: $(STAMP) ## kill the writer, cut its power, fail its disk (takes minutes): nothing may be lost
	PYTHONPATH=tests $(BIN)/python bench/crash.py

chaos: $(STAMP) ## random calls while nodes die, hang and take over (takes minutes): no promise may be broken
	PYTHONPATH=tests $(BIN)/python bench/chaos.py

streams: $(STAMP) ## cut a stream at every frame, cancel ten thousand (takes a minute or two): nothing may be left
	PYTHONPATH=tests $(BIN)/python bench/streams.py

churn: $(STAMP) ## 100,000 reads among updates and deletions (takes minutes): none may return what was dead
	PYTHONPATH=tests $(BIN)/python bench/churn.py

recall: $(STAMP) ## recall@10 of filtered searches by meaning on 100,000 memories (takes minutes)
	PYTHONPATH=tests $(BIN)/python bench/recall.py

plans: $(STAMP) ## what the planner takes beside the best of its plans, on 100,000 memories (takes a minute)
	$(BIN)/python bench/plans.py

load: $(STAMP) ## call the running cluster many times: CALL=<a file of bench/ghz>, HOST=<host:port>, LOAD="-z 10s -c 20"
	$(LOADER) --config bench/ghz/$(CALL).json $(LOAD) $(HOST)

test: $(STAMP) ## run the tests, WORKERS files at a time (they mostly wait for processes)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

check: $(STAMP) ## formatting, lint, types, protos; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd protos && $(CURDIR)/$(BIN)/buf lint
	@rm -rf .venv/protos && mkdir .venv/protos
	@$(call generate,.venv/protos)
	@diff -r --exclude='*.proto' --exclude=__pycache__ .venv/protos/agentmem protos/agentmem \
	  || { echo "the generated code is not up to date: run make protos" >&2; exit 1; }

format: $(STAMP) ## format the code and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(STAMP) ## generate the Python code of the protos
	$(call generate,protos)

clean: ## remove .venv and caches; keeps DATA_DIR
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
