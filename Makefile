# Two commands do all the set-up on a fresh Debian machine with Go, pip and root: make demo, make test.

SHELL := /bin/bash
GO ?= go
BIN := bin

CLUSTER_DIR ?= /var/tmp/hythe-cluster

LINT := $(HOME)/.cache/hythe/bin/golangci-lint
LINT_VERSION := v2.12.2
VERSION := $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null || echo unknown)
IMAGES_ARCH ?= amd64,arm64
LDFLAGS := -s -w -X main.version=$(VERSION)

# Tests, linters and the product are compiled alike, so that each dependency is compiled once (and once more for -race).
export CGO_ENABLED := 0
export GOFLAGS := -trimpath $(filter-out -trimpath,$(GOFLAGS))
# make lint vets.
GOTEST := $(GO) test -vet off

.DEFAULT_GOAL := help
.PHONY: help ahead conformance images test-images demo test test-fast test-root test-api apiserver lint build envoy setup cluster cluster-down cluster-status test-cluster test-faults kubernetes setup-cluster crash services golden guards fuzz bench bench-services bench-gateway clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup envoy build $(if $(filter api,$(SOURCE)),apiserver) ## Show the main job in a lab of network namespaces (MANIFESTS=DIR for your own, FILL=1 to complete them, SOURCE=api for a real Kubernetes API)
	$(BIN)/hythe lab demo $(if $(SOURCE),--source $(SOURCE)) $(if $(MANIFESTS),--manifests $(MANIFESTS)) $(if $(filter-out 0,$(FILL)),--fill)

test: setup test-fast test-root test-images ## Run all tests: the fast ones first, then those that need root and Envoy

test-fast: ## Run the tests that need neither root nor Envoy
	CGO_ENABLED=1 $(GOTEST) -short -race ./...
	cd scripts/images && $(GOTEST) -short ./...

test-root: setup envoy build $(if $(filter 1,$(HYTHE_API)),apiserver) ## Run all tests that need no API server, none skipped (HYTHE_API=1: and those that do); needs root
	@./scripts/kubernetes.sh build helm helm3 $(if $(filter 1,$(HYTHE_API)),kube-proxy)
	LAB=strict $(GOTEST) -p 2 -timeout 15m ./...

test-images: setup-cluster ## Build the images twice and compare them; run what is in them; needs root
	cd scripts/images && LAB=strict $(GOTEST) -timeout 15m ./...

test-api: setup envoy build apiserver ## Run the tests against a real Kubernetes API server; needs root
	@./scripts/kubernetes.sh build helm helm3
	HYTHE_API=1 LAB=strict $(GOTEST) -p 1 -timeout 9m ./internal/kube/... ./cmd/hythe ./charts
	HYTHE_API=1 LAB=strict $(GOTEST) -p 1 -timeout 9m -run 'API' -v ./internal/lab ./internal/lab/apiserver

apiserver: ## Build etcd and kube-apiserver, unless they are there: some minutes the first time
	@./scripts/apiserver.sh build

# The cluster's nodes are of this machine's architecture.
cluster test-cluster test-faults: IMAGES_ARCH := $(shell $(GO) env GOARCH)

cluster: setup-cluster kubernetes $(if $(filter peer,$(FLAVOUR)),,$(if $(filter 1,$(BARE)),,images)) ## Start a real Kubernetes with Hythe on this machine (NODES=3; FLAVOUR=hythe, peer or guest; APISERVERS=2; DUAL=1 for IPv4 and IPv6; BARE=1 without Hythe)
	@$(GO) build -o $(BIN)/rig ./conformance/rig
	@$(BIN)/rig up --dir $(CLUSTER_DIR) --nodes $(or $(NODES),3) --flavour $(or $(FLAVOUR),hythe) --apiservers $(or $(APISERVERS),1) $(if $(filter 1,$(BARE)),--bare) $(if $(filter 1,$(DUAL)),--dual)

cluster-down: ## Stop that cluster and remove everything of it
	@$(GO) build -o $(BIN)/rig ./conformance/rig
	@$(BIN)/rig down --dir $(CLUSTER_DIR)

cluster-status: ## Show what runs of that cluster
	@$(BIN)/rig status --dir $(CLUSTER_DIR)

conformance: ## Run Kubernetes' own tests against that cluster; goes on where it was stopped (SET=conformance, network, loadbalancer or dualstack; FOCUS=REGEXP, SKIP=REGEXP; BESIDE=4 at a time; AGAIN=1 runs also what failed)
	@./scripts/kubernetes.sh build e2e.test
	@$(GO) build -o $(BIN)/e2e ./conformance/e2e
	@$(BIN)/e2e --dir $(CLUSTER_DIR) $(if $(SET),--set $(SET)) $(if $(BESIDE),--beside $(BESIDE)) $(if $(FOCUS),--focus '$(FOCUS)') $(if $(SKIP),--skip '$(SKIP)') $(if $(filter 1,$(AGAIN)),--again)

test-cluster: setup-cluster kubernetes images ## Test the whole life of Hythe on that cluster, and that nothing is left of it; takes the place of one that runs
	@./scripts/kubernetes.sh build e2e.test
	HYTHE_CLUSTER=1 LAB=strict $(GOTEST) -count 1 -timeout 35m -v -skip '^(TestFaults|TestTwoAPIServers)$$' ./conformance/rig/...

test-faults: setup-cluster kubernetes images ## Break things on that cluster under traffic, some 25 minutes (HYTHE_API_AWAY=60s, HYTHE_MANY=2000)
	HYTHE_CLUSTER=1 LAB=strict $(GOTEST) -count 1 -timeout 60m -v -run '^(TestFaults|TestTwoAPIServers)$$' ./conformance/rig

services: setup apiserver ## Send the packets of the suite about Services through Hythe and through kube-proxy; writes conformance/results/services.md
	@./scripts/kubernetes.sh build kube-proxy
	HYTHE_API=1 LAB=strict SERVICES_COMMIT=$(VERSION) SERVICES_RESULTS=$(CURDIR)/conformance/results/services.md \
		$(GOTEST) -count 1 -timeout 9m -run 'TestBeside$$' -v ./conformance/services

kubernetes: ## Build Kubernetes, CoreDNS and Helm, unless they are there: some minutes the first time
	@./scripts/kubernetes.sh build etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl agnhost regression-issue-74839 pause coredns helm helm3

ahead: $(LINT) ## Build what the last steps of .ci/run need, at the lowest priority, in the order of need
	@nice -n 19 ./scripts/kubernetes.sh build helm helm3 etcd kube-apiserver kube-proxy kube-controller-manager kube-scheduler kubelet kubectl \
		agnhost regression-issue-74839 pause coredns e2e.test

setup-cluster: setup
	@./scripts/setup.sh cluster

crash: setup envoy build ## Kill Hythe's processes 100 times under traffic (CRASH_ROUNDS, CRASH_SEED); writes conformance/results/crash.md
	@mkdir -p conformance/results
	CRASH_ROUNDS=$(or $(CRASH_ROUNDS),100) CRASH_CHANGES=1000 CRASH_COMMIT=$(VERSION) CRASH_RESULTS=$(CURDIR)/conformance/results/crash.md LAB=strict \
		$(GO) test -count 1 -timeout 30m -run 'TestCrash$$' -v ./internal/lab

lint: $(LINT) ## Run the linters, go vet and the import boundaries among them
	@# A cache of this checkout's own: a shared one holds findings of other checkouts, also of removed ones.
	GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint $(LINT) run
	cd scripts/images && GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint $(LINT) run --config $(CURDIR)/.golangci.yml ./...

build: ## Build bin/hythe and bin/hythe-cni
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/hythe ./cmd/hythe-cni

images: ## Write the container images to bin/images, without Docker (IMAGES_ARCH=amd64,arm64; VERSION is the tag)
	@# The compiler that go.mod names, not a newer one that may be installed: the bytes depend on it.
	cd scripts/images && GOTOOLCHAIN=go$(shell awk '$$1 == "go" { print $$2 }' go.mod) $(GO) run . --go $(GO) --version $(VERSION) --out $(CURDIR)/$(BIN)/images --arch $(IMAGES_ARCH)

envoy: ## Fetch the Envoy binary, unless it is there
	@./scripts/envoy.sh >/dev/null

setup: ## Install the Debian packages that tests and demo use
	@./scripts/setup.sh

golden: ## Rewrite the golden files of the tests from what the code does now: read the diff
	$(GO) test -short $$(grep -rl --include='*_test.go' internal/golden . | xargs -n 1 dirname | sort -u) -update

bench-services: setup ## Measure the Service datapath beside kube-proxy, some 30 minutes, goes on where it was stopped; needs root (SHORT=1: a minute, keeps nothing; ONLY=full,update,traffic,alive,churn,churn-api)
	$(if $(SHORT),,@./scripts/kubernetes.sh build kube-proxy)
	$(GO) build -o $(BIN)/ ./cmd/hythe ./conformance/bench
	@GO=$(GO) ./scripts/other-version.sh $(BIN)/hythe-other
	$(BIN)/bench --hythe $(BIN)/hythe --other $(BIN)/hythe-other --commit $(VERSION) $(if $(ONLY),--only $(ONLY)) $(if $(SHORT),--short)

bench: ## Run the benchmarks
	$(GO) test -run '^$$' -bench . -short ./gateway/... ./lb/... ./node/...

bench-gateway: setup envoy apiserver ## Measure the gateway: lost requests, propagation, throughput beside nginx, HAProxy and a static Envoy; goes on where it was stopped; needs root (SHORT=1: a minute, keeps nothing; ONLY=lost,propagation,throughput,scale)
	@./scripts/setup.sh bench
	@mkdir -p conformance/results
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/hythe
	$(GO) build -o $(BIN)/bench-gateway ./conformance/bench/gateway
	$(BIN)/bench-gateway --hythe $(BIN)/hythe --commit $(VERSION) $(if $(ONLY),--only $(ONLY)) $(if $(filter-out 0,$(SHORT)),--short)

guards: ## Take out each guard against a fault, one by one, and see its test fail (some minutes; needs root and Envoy)
	$(GO) run ./conformance/guards

fuzz: ## Run each fuzz target for a short while (FUZZTIME=30s)
	@./scripts/fuzz.sh

clean: ## Remove what was built here, and a lab that was left running
	-test ! -x $(BIN)/hythe || $(BIN)/hythe lab down
	rm -rf $(BIN)

$(LINT):
	GOBIN=$(dir $(LINT)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
