# Two commands do all the set-up on a fresh Debian machine with Go, pip and root: make demo, make test.

SHELL := /bin/bash
GO ?= go
BIN := bin

LINT := $(HOME)/.cache/hythe/bin/golangci-lint
LINT_VERSION := v2.12.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-root test-api apiserver lint build envoy setup crash golden guards fuzz bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup envoy build $(if $(filter api,$(SOURCE)),apiserver) ## Show the main job in a lab of network namespaces (MANIFESTS=DIR for your own, FILL=1 to complete them, SOURCE=api for a real Kubernetes API)
	$(BIN)/hythe lab demo $(if $(SOURCE),--source $(SOURCE)) $(if $(MANIFESTS),--manifests $(MANIFESTS)) $(if $(filter-out 0,$(FILL)),--fill)

test: test-fast test-root ## Run all tests: the fast ones first, then those that need root and Envoy

test-fast: ## Run the tests that need neither root nor Envoy
	$(GO) test -short -race ./...

test-root: setup envoy build ## Run all tests, none skipped; needs root
	LAB=strict $(GO) test -p 1 -timeout 9m ./...

test-api: setup envoy build apiserver ## Run the tests against a real Kubernetes API server; needs root
	HYTHE_API=1 LAB=strict $(GO) test -p 1 -timeout 9m ./internal/kube/... ./cmd/hythe
	HYTHE_API=1 LAB=strict $(GO) test -p 1 -timeout 9m -run 'API' -v ./internal/lab ./internal/lab/apiserver

apiserver: ## Build etcd and kube-apiserver, unless they are there: some minutes the first time
	@./scripts/apiserver.sh build

crash: setup envoy build ## Kill Hythe's processes 100 times under traffic (CRASH_ROUNDS, CRASH_SEED); writes conformance/results/crash.md
	@mkdir -p conformance/results
	CRASH_ROUNDS=$(or $(CRASH_ROUNDS),100) CRASH_CHANGES=1000 CRASH_COMMIT=$(VERSION) CRASH_RESULTS=$(CURDIR)/conformance/results/crash.md LAB=strict \
		$(GO) test -count 1 -timeout 30m -run 'TestCrash$$' -v ./internal/lab

lint: $(LINT) ## Run the linters, the import boundaries among them
	$(GO) vet ./...
	@# A cache of this checkout's own: a shared one holds findings of other checkouts, also of removed ones.
	GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint $(LINT) run

build: ## Build bin/hythe and bin/hythe-cni
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/hythe ./cmd/hythe-cni

envoy: ## Fetch the Envoy binary, unless it is there
	@./scripts/envoy.sh >/dev/null

setup: ## Install the Debian packages that tests and demo use
	@./scripts/setup.sh

golden: ## Rewrite the golden files of the tests from what the code does now: read the diff
	$(GO) test -short $$(grep -rl --include='*_test.go' internal/golden . | xargs -n 1 dirname | sort -u) -update

bench: ## Run the benchmarks
	$(GO) test -run '^$$' -bench . -short ./gateway/... ./lb/... ./node/...

guards: ## Take out each guard against a fault, one by one, and see its test fail (some minutes; needs root and Envoy)
	$(GO) run ./conformance/guards

fuzz: ## Run each fuzz target for a short while (FUZZTIME=30s)
	@./scripts/fuzz.sh

clean: ## Remove what was built here, and a lab that was left running
	-test ! -x $(BIN)/hythe || $(BIN)/hythe lab down
	rm -rf $(BIN)

$(LINT):
	GOBIN=$(dir $(LINT)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
