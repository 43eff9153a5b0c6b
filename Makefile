# The verbs that people and .ci/run use. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/v6d-go/v6d/internal/cli.Version=$(VERSION)
FUZZTIME ?= 10s
LINT := .tools/golangci-lint
ETCD := .tools/etcd

.PHONY: allocs bench bench-full bench-compare chaos etcd faults help build demo test unit race scripts fuzz fuzz-smoke interop interop-once recovery lint gen check-gen clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## build bin/v6d, static
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/v6d ./cmd/v6d

demo: build ## the main job, end to end, on the embedded defaults
	scripts/demo.sh

test: build race allocs fuzz-smoke interop-once ## everything: unit, race, scripts, fuzz seeds, the real clients

unit: $(ETCD) ## unit tests without the race detector
	go test ./...

race: interop-venv $(ETCD) ## all Go tests, scripts and recovery included, under the race detector
	go test -race -shuffle=on -timeout 15m ./...

allocs: ## what hot requests allocate, without the race detector
	go test -count=1 -run Allocate ./internal/server

fuzz-smoke: ## each fuzz target for a few seconds
	FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

fuzz: ## each fuzz target for five minutes
	FUZZTIME=5m scripts/fuzz.sh

interop-venv: ## install the published package into the checkout
	interop/venv.sh > /dev/null

interop-once: build $(ETCD) ## the published package's own tests against v6d, and v6d and vineyardd in one cluster
	interop/interop.py once --v6d bin/v6d

interop: build interop-venv $(ETCD) ## the matrix of types; the published tests against the reference three times, side by side
	V6D_BIN=$(CURDIR)/bin/v6d go test -count=1 -v ./interop/types
	interop/interop.py full --v6d bin/v6d

recovery: interop-venv ## 200 crashes and recoveries
	V6D_RECOVERY_CYCLES=200 go test -count=1 -timeout 30m -v -run Recovery ./interop/recovery

lint: $(LINT) ## static checks
	go vet ./...
	GOOS=darwin go vet ./client/... ./typed/...
	$(LINT) run ./...

$(LINT): tools/go.mod tools/go.sum
	mkdir -p .tools
	cd tools && go build -o ../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

etcd: $(ETCD) ## build the real etcd that tests of clusters run

$(ETCD): tools/etcd/go.mod tools/etcd/go.sum
	mkdir -p .tools
	cd tools/etcd && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../$(ETCD) go.etcd.io/etcd/server/v3

gen: ## write man pages, completions and the generated tables in docs
	go generate ./...

check-gen: gen ## generated files are as committed
	git diff --exit-code -- man completions docs

clean: ## remove what the build made
	rm -rf bin dist .tools .interop

bench: build interop-venv $(ETCD) ## measure, side by side with the reference daemon (under 5 minutes)
	go run ./bench run $(BENCHFLAGS)

bench-full: build bench-peers $(ETCD) ## all sizes, and the peers; writes docs/benchmarks.md (half an hour)
	go run ./bench run -full -doc docs/benchmarks.md -json bench/latest.json $(BENCHFLAGS)

bench-compare: ## the ratios of two saved runs: make bench-compare OLD=a.json NEW=b.json
	go run ./bench compare $(OLD) $(NEW)

bench-peers: interop-venv
	bench/peers.sh

CHAOS_SECONDS ?= 600
CHAOS_SEEDS ?= 1 2 3
chaos: $(ETCD) ## clusters of real nodes: the slow fault tests, then chaos for CHAOS_SECONDS with each of CHAOS_SEEDS
	V6D_SLOW=1 go test -count=1 -timeout 10m -v ./interop/cluster
	for seed in $(CHAOS_SEEDS); do \
		V6D_CHAOS_SECONDS=$(CHAOS_SECONDS) V6D_CHAOS_SEED=$$seed \
			go test -count=1 -timeout $$(($(CHAOS_SECONDS) + 600))s -v -run Chaos ./interop/cluster; \
	done

faults: $(ETCD) ## the fault harness, its crowd for two minutes; faults of migration, far memory and the browser on three nodes
	V6D_FAULT_SECONDS=120 go test -count=1 -timeout 30m -v ./interop/faults
	go test -count=1 -timeout 30m -v -run 'Migrat|Peer|Receiver|Near|Deleted|Cut|Classic|Link|Impostors|Frame|Far|Browser' ./interop/cluster
