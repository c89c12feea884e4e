# Everything that a person or CI does with this repository. `make help` lists it.
#
# Variables:  DATA=dir         text to train on (demo); default: the Go toolchain's source
#             DEMO_SECONDS=n   how long the demo trains; default 60
#             PYTHON=python    interpreter for .venv; default: python3, else python3.10 or newer
#             TORCH_INDEX_URL  where setup takes torch from; default: pip's index
#             FUZZTIME=30s     time for each fuzz target
#             QUICK=1          the short benchmarks (4 minutes and 1 minute on 2 cores)
#             BENCH_JSON=file  where bench, bench-prefetch and bench-flash write their result; default bench.json
#             BENCH_DATA=dir   on the disk that bench-prefetch and bench-flash measure; default: the system's temporary folder
#             GPU_CHECK_JSON=file  where gpu-check writes its result; default gpu-check.json
#             GPU_CHECK_STUB=1 run gpu-check on the stand-ins also where there is a GPU; 0: fail where there is none
#             PACKAGES=./...   Go packages for race; PYTEST="-k name" arguments for py

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?=
DATA ?=
DEMO_SECONDS ?= 60
FUZZTIME ?= 30s
QUICK ?=
BENCH_JSON ?= bench.json
BENCH_DATA ?=
GPU_CHECK_JSON ?= gpu-check.json
GPU_CHECK_STUB ?=
PACKAGES ?= ./...
PYTEST ?=
GO_TEST_TIMEOUT ?= 30m

export PYTHON TORCH_INDEX_URL GPU_CHECK_STUB

tools := internal/tools
venv := .venv/bin
# A tag names the version; without one the programs keep the number they carry.
version := $(shell git describe --tags --dirty 2>/dev/null)
revision := $(shell git describe --always --dirty --exclude='*' 2>/dev/null)
# go-nvml leaves NVML's symbols to be found at run time: a program linked with -z now would not start.
ldflags := -extldflags=-Wl,-z,lazy $(if $(version),-X main.version=$(version:v%=%)) $(if $(revision),-X main.revision=$(revision))

# need COMMAND, REMEDY: stop if COMMAND is not there.
need = @command -v $(1) >/dev/null || { printf 'make: error: %s is not in PATH\n      remedy: %s\n' '$(1)' '$(2)' >&2; exit 1; }
need_go = $(call need,go,install Go 1.26 or newer (https://go.dev/dl) and add its bin directory to PATH)
need_cc = $(call need,$(firstword $(shell go env CC 2>/dev/null) cc),install a C compiler (Debian and Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc); a build without one: make nocgo)

.PHONY: help
help: ## list the targets
	@printf 'make TARGET [VARIABLE=value ...]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n'
	@sed -n 's/^# *Variables: */#             /;/^#             [A-Z]/s/^# *//p' $(MAKEFILE_LIST) | sed 's/^/  /'

.PHONY: setup
setup: ## make .venv with the pinned Python tools and torch (idempotent; the others call it)
	@$(tools)/setup.sh

.PHONY: build
build: ## build bin/stokerd and bin/stoker
	$(need_go)
	$(need_cc)
	@mkdir -p bin
	CGO_ENABLED=1 go build -trimpath -ldflags '$(ldflags)' -o bin/ ./cmd/stokerd ./cmd/stoker

.PHONY: nocgo
nocgo: ## build both without a C compiler, into bin/nocgo (no names for C frames in profiles)
	$(need_go)
	@mkdir -p bin/nocgo
	CGO_ENABLED=0 go build -trimpath -ldflags '$(ldflags)' -o bin/nocgo/ ./cmd/stokerd ./cmd/stoker

.PHONY: demo
demo: build setup ## train a small language model through the daemon, about a minute
	@$(venv)/python python/demo/run.py --bin bin --seconds '$(DEMO_SECONDS)' $(if $(DATA),--data '$(DATA)')

.PHONY: test
test: ## everything that CI checks: builds, linters, Go tests with -race, Python tests
	@$(tools)/test.sh

.PHONY: race
race: ## Go tests with the race detector; a skip is a failure (PACKAGES=./...)
	$(need_go)
	$(need_cc)
	@go run ./$(tools)/gotest -race -timeout $(GO_TEST_TIMEOUT) $(PACKAGES)

.PHONY: sequences
sequences: ## 100,000 random sequences of cufile's calls with faults on stand-ins: nothing is left of any (SEQUENCES=100000)
	$(need_go)
	$(need_cc)
	go test ./cufile -run RandomSequences -timeout $(GO_TEST_TIMEOUT) -cufile.sequences='$(or $(SEQUENCES),100000)'

.PHONY: py
py: build setup gpu-programs ## Python tests against the real daemon; a skip is a failure (PYTEST="-k name")
	@cd python && STOKERD='$(CURDIR)/bin/stokerd' STOKER='$(CURDIR)/bin/stoker' PYTHONPATH='$(CURDIR)/$(tools)' \
		../$(venv)/python -m pytest -p pytest_no_skips $(PYTEST)

.PHONY: lint
lint: setup ## gofmt, go vet, staticcheck, ruff, mypy --strict
	$(need_go)
	@$(tools)/lint.sh

.PHONY: fuzz
fuzz: ## run every fuzz target in turn (FUZZTIME=30s each)
	$(need_go)
	@$(tools)/fuzz.sh '$(FUZZTIME)'

.PHONY: bench
bench: build setup ## compare with other loaders, write BENCH_JSON (QUICK=1: the short run)
	bin/stoker bench compare $(if $(QUICK),--quick) --json '$(BENCH_JSON)'

.PHONY: bench-prefetch
bench-prefetch: build ## what reading ahead wins and costs: on this disk, in simulated time, on this processor
	bin/stoker bench prefetch $(if $(QUICK),--quick) $(if $(BENCH_DATA),--data-dir '$(BENCH_DATA)') --json '$(BENCH_JSON)'

.PHONY: bench-flash
bench-flash: build ## the flash store beside bare loops on the same disk: reads, writes, starts, memory, a day of churn
	bin/stoker bench flash $(if $(QUICK),--quick) $(if $(BENCH_DATA),--dir '$(BENCH_DATA)') --json '$(BENCH_JSON)'

.PHONY: gpu-programs
gpu-programs: ## bin/gpucheck, to be copied to a machine with a GPU: bin/gpucheck/run.sh needs Python with torch, and no Go
	$(need_go)
	$(need_cc)
	@CGO_ENABLED=1 bench/gpucheck/build.sh bin/gpucheck

.PHONY: gpu-check
gpu-check: gpu-programs setup ## try cufile on this machine's GPU, write GPU_CHECK_JSON; without a GPU on the stand-ins (STUB)
	@PYTHON='$(CURDIR)/$(venv)/python' bin/gpucheck/run.sh --out '$(GPU_CHECK_JSON)'

.PHONY: pgo
pgo: setup ## profile batches and scans on this machine; the builds are optimised with cmd/*/default.pgo
	@dir=$$(mktemp -d) && go build -pgo=off -o "$$dir/" ./cmd/stokerd ./cmd/stoker && \
		"$$dir/stoker" bench compare --quick --repeats 6 --profiles "$$dir" >/dev/null && \
		go tool pprof -proto "$$dir"/*.pprof >cmd/stokerd/default.pgo && rm -rf "$$dir"
	cp cmd/stokerd/default.pgo cmd/stoker/default.pgo

.PHONY: docs
docs: ## write anew what of docs/ is generated: man pages, the API's reference, the list of metrics
	$(need_go)
	go test ./loader/api -run Generated -update
	go run ./cmd/stoker man docs/man

.PHONY: pins
pins: ## renew python/requirements/constraints.txt (PYTHONS="python3.10 ... python3.13")
	$(or $(PYTHON),python3) $(tools)/pins.py $(or $(PYTHONS),python3.10 python3.11 python3.12 python3.13)

.PHONY: clean
clean: ## remove what the other targets made, but for .venv
	rm -rf bin bench.json gpu-check.json
	find . \( -path ./.git -o -path ./.venv \) -prune -o \( -name __pycache__ -o -name .mypy_cache -o -name .ruff_cache -o -name .pytest_cache -o -name .hypothesis -o -name '*.egg-info' \) -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## clean, and remove .venv: the next make setup downloads it again
	rm -rf .venv .venv.lock
