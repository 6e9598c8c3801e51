# iscsictl: `make` alone lists what there is.

SHELL         = /bin/bash
.SHELLFLAGS   = -euo pipefail -c
.DEFAULT_GOAL = help
.NOTPARALLEL:

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
SBINDIR  ?= $(PREFIX)/sbin
MANDIR   ?= $(PREFIX)/share/man
FUZZTIME ?= 10s
SOAKTIME ?= 10m
BENCH    ?=

# A tarball has no .git, and must not take the version of a repository that it
# happens to lie in.
VERSION := $(or $(shell test -e .git && git describe --tags --always --dirty 2>/dev/null),dev)

# RDMA devices are built in where there are gcc and the headers of libibverbs and
# librdmacm; the libraries are only looked for when the programs run. RDMA= leaves
# them out: the programs are static then.
RDMA ?= $(shell printf '\043include <infiniband/verbs.h>\n\043include <rdma/rdma_cma.h>\n' | \
	gcc -E -x c - >/dev/null 2>&1 && echo yes)

# The first two tags leave out parts of package cli that the programs do not use.
TAGS  = urfave_cli_no_docs,urfave_cli_no_suggest$(if $(RDMA),$(COMMA)rdma)
COMMA = ,
BUILD = CGO_ENABLED=$(if $(RDMA),1,0) $(GO) build -trimpath -buildvcs=false -tags $(TAGS) \
	-ldflags '-s -w -X main.version=$(VERSION)'
TOOL  = $(GO) tool -modfile=tools/go.mod

# What needs the whole machine (devices, mounts, other people's programs) lives
# below test/ and runs one package at a time.
UNIT = $$($(GO) list ./... | grep -v '^iscsictl/test/')
E2E  = $$($(GO) list ./test/... | grep -v '^iscsictl/test/vm')

MAN = man/iscsi.4 man/iser.4 man/iscsi.conf.5 man/iscsictl.8 man/iscsid.8

.PHONY: help
help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## build the programs into bin/
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

.PHONY: demo
demo: build ## show the way from iscsi.conf to a mounted disk, on this machine alone
	@test/demo.sh

.PHONY: check
check: deps check-fast ## install what the tests need (as root on Debian), then run everything

.PHONY: check-fast
check-fast: build lint test sim e2e ## all checks but those that need a virtual machine

.PHONY: check-vm
check-vm: ## what needs other kernels, RDMA devices and ublk: in a virtual machine (as root; test/vm/README.md)
	@test/vm/run.sh

.PHONY: deps
deps: ## install the programs that the tests use (as root on Debian; else say what is missing)
	@test/deps.sh

.PHONY: lint
lint: ## format, go vet, staticcheck
	@out=$$($(TOOL) gofumpt -l .); \
	  if [ -n "$$out" ]; then printf 'not formatted (run: make fmt):\n%s\n' "$$out" >&2; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

.PHONY: fmt
fmt: ## format the sources in place
	$(TOOL) gofumpt -w .

.PHONY: test
test: ## unit tests, with the race detector
	@$(GO) run ./test/report -race -timeout 10m $(UNIT)

.PHONY: sim
sim: ## 50,000 simulated runs of a session against a hostile network and target (SIM_RUNS, SIM_FIRST)
	@$(GO) test -count=1 -timeout 20m -v -run TestSeeds ./test/simulation

.PHONY: e2e
e2e: ## end-to-end tests, as root if they are to show all, and the checks of this tree itself
	@$(GO) run ./test/report -race -count=1 -p 1 -timeout 20m $(E2E)

.PHONY: bench
bench: ## measure the data path beside its peers, for docs/performance.md (BENCH=-rounds=1 is quicker)
	@$(GO) run ./test/bench $(BENCH)

.PHONY: fuzz
fuzz: ## fuzz each decoder and parser for FUZZTIME (default 10s)
	@FUZZTIME=$(FUZZTIME) GO="$(GO)" test/fuzz.sh

.PHONY: soak
soak: ## repeat the tests in random order with the race detector for SOAKTIME (default 10m)
	@SOAKTIME=$(SOAKTIME) GO="$(GO)" test/soak.sh

.PHONY: install
install: build ## install the programs and manual pages below DESTDIR and PREFIX
	install -d $(DESTDIR)$(SBINDIR)
	install -m 0755 bin/iscsictl bin/iscsid $(DESTDIR)$(SBINDIR)/
	for page in $(MAN); do install -D -m 0644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; done

.PHONY: uninstall
uninstall: ## take away what install put there
	rm -f $(DESTDIR)$(SBINDIR)/iscsictl $(DESTDIR)$(SBINDIR)/iscsid
	for page in $(MAN); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
