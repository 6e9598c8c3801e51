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
FAULTS   ?= 100
SESSIONS ?= 1000
BENCH    ?=
DIST     ?= dist
BIN      ?= bin

DEB_MAINTAINER ?= The iscsictl authors <iscsictl@example.org>

# A tarball has no .git, and must not take the version of a repository that it
# happens to lie in.
VERSION := $(or $(shell test -e .git && git describe --tags --always --dirty 2>/dev/null),dev)

# RDMA devices are built in where there are gcc and the headers of libibverbs and
# librdmacm; the libraries are only looked for when the programs run. RDMA= leaves
# them out: the programs are static then.
RDMA ?= $(shell printf '\043include <infiniband/verbs.h>\n\043include <rdma/rdma_cma.h>\n' | \
	gcc -E -x c - >/dev/null 2>&1 && echo yes)

# HARDEN=yes is what distributions want of their programs: addresses that vary.
HARDEN ?=

# The first two tags leave out parts of package cli that the programs do not use.
TAGS  = urfave_cli_no_docs,urfave_cli_no_suggest$(if $(RDMA),$(COMMA)rdma)
COMMA = ,
BUILD = CGO_ENABLED=$(if $(RDMA),1,0) $(GO) build -trimpath -buildvcs=false -tags $(TAGS) \
	$(if $(HARDEN),-buildmode=pie) -ldflags '-s -w $(if $(HARDEN),-bindnow) -X main.version=$(VERSION)'
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
check: deps check-fast check-vm-quick ## install what the tests need (as root on Debian), then run all tests that take minutes

.PHONY: check-fast
check-fast: build lint vuln test sim e2e ## all checks but those that need a virtual machine

.PHONY: check-vm-quick
check-vm-quick: ## the quick cases of check-vm; where there is no virtual machine to be had, it says so
	@VM_QUICK=1 VM_OPTIONAL=$${VM_OPTIONAL-1} test/vm/run.sh

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

.PHONY: vuln
vuln: ## look for known vulnerabilities of what is used of libraries, where Go's database of them can be reached
	@GO="$(GO)" test/vuln.sh

.PHONY: fmt
fmt: ## format the sources in place
	$(TOOL) gofumpt -w .

.PHONY: test
test: ## unit tests, with the race detector; without it those of allocations that it would disturb
	@$(GO) run ./test/report -race -timeout 10m $(UNIT)
	@$(GO) run ./test/report -timeout 10m -run 'Allocat' ./cmd/iscsibench ./device/nbd

.PHONY: sim
sim: ## 50,000 simulated runs of a session against a hostile network and target (SIM_RUNS, SIM_FIRST)
	@$(GO) test -count=1 -timeout 20m -v -run TestSeeds ./test/simulation

.PHONY: e2e
e2e: ## end-to-end tests, as root if they are to show all, and the checks of this tree itself
	@$(GO) run ./test/report -race -count=1 -p 1 -timeout 20m $(E2E)

.PHONY: bench
bench: ## measure the data path beside its peers, for docs/performance.md (BENCH=-rounds=1 is quicker)
	@$(GO) run ./test/bench $(BENCH)

.PHONY: bench-vm
bench-vm: ## the same by RDMA, beside its peers, in a virtual machine (as root; BENCH=-rounds=1 is quicker)
	@test/vm/run.sh --bench $(BENCH)

.PHONY: bench-disks
bench-disks: ## disks of iscsid beside the kernel's own initiator, by TCP and by iSER, in a virtual machine (as root)
	@test/vm/bench-disks.sh
	@test/vm/bench-disks.sh --iser ublk

.PHONY: fuzz
fuzz: ## fuzz each decoder, and sessions as a whole, for FUZZTIME each (default 10s)
	@FUZZTIME=$(FUZZTIME) GO="$(GO)" test/fuzz.sh

.PHONY: campaign
campaign: ## do FAULTS faults (default 100) to iscsid, network and each kind of target, while hosts keep books
	@CAMPAIGN_FAULTS=$(FAULTS) $(GO) run ./test/report -race -count=1 -timeout 0 -run '^TestCampaign$$' ./test/e2e

.PHONY: limits
limits: ## say what SESSIONS sessions (default 1000) with four disks each cost
	@LIMITS=$(SESSIONS) $(GO) run ./test/report -count=1 -timeout 30m -run '^TestLimits$$' ./test/e2e

.PHONY: soak
soak: ## a million simulated runs, a campaign of faults, then the tests in random order for SOAKTIME (default 10m)
	@SOAKTIME=$(SOAKTIME) FAULTS=$(FAULTS) GO="$(GO)" test/soak.sh

# One entry for each file that is installed: FILE=PLACE. What belongs to the system
# as a whole comes along with PREFIX=/usr only: below another prefix the programs
# disturb nothing, not even open-iscsi, whose daemon and unit have the same names.
FILES = $(foreach f,$(MAN),$(f)=$(MANDIR)/man$(subst .,,$(suffix $(f)))/$(notdir $(f))) \
	$(foreach p,iscsictl iscsid,init/iscsictl.bash=$(PREFIX)/share/bash-completion/completions/$(p))
ifeq ($(PREFIX),/usr)
FILES += $(foreach f,$(wildcard init/*.service),$(f)=/usr/lib/systemd/system/$(notdir $(f))) \
	$(foreach f,$(wildcard init/*.rules),$(f)=/usr/lib/udev/rules.d/$(notdir $(f))) \
	$(foreach f,$(wildcard init/*.sysusers),$(f)=/usr/lib/sysusers.d/$(notdir $(f:.sysusers=.conf))) \
	$(foreach f,$(wildcard init/*.tmpfiles),$(f)=/usr/lib/tmpfiles.d/$(notdir $(f:.tmpfiles=.conf)))
# The administrator's, once they are there.
SETTINGS = $(foreach f,$(wildcard init/*.default),$(f)=/etc/default/$(notdir $(f:.default=)))
endif

.PHONY: install
install: build ## install below DESTDIR and PREFIX; with PREFIX=/usr also units, udev rule and settings
ifeq ($(PREFIX),/usr)
	@if [ -e "$(DESTDIR)/usr/sbin/iscsiadm" ] || [ -e "$(DESTDIR)/usr/bin/iscsiadm" ]; then \
	  echo "open-iscsi is installed there, whose iscsid this would replace: remove it, or leave PREFIX=/usr out" >&2; exit 1; fi
endif
	install -d "$(DESTDIR)$(SBINDIR)"
	install -m 0755 "$(BIN)/iscsictl" "$(BIN)/iscsid" "$(DESTDIR)$(SBINDIR)/"
	for pair in $(FILES); do install -D -m 0644 "$${pair%%=*}" "$(DESTDIR)$${pair#*=}"; done
	for pair in $(SETTINGS); do \
	  [ -e "$(DESTDIR)$${pair#*=}" ] || install -D -m 0644 "$${pair%%=*}" "$(DESTDIR)$${pair#*=}"; done
	@$(if $(DESTDIR)$(filter-out /usr,$(PREFIX)),,printf 'now: systemd-sysusers; systemctl daemon-reload; %s\n' \
	  'systemctl enable --now $(notdir $(shell grep -l '^\[Install\]' init/*.service))')

.PHONY: uninstall
uninstall: ## take away what install put there; settings that were changed stay
	rm -f "$(DESTDIR)$(SBINDIR)/iscsictl" "$(DESTDIR)$(SBINDIR)/iscsid"
	for pair in $(FILES); do rm -f "$(DESTDIR)$${pair#*=}"; done
	for pair in $(SETTINGS); do \
	  ! cmp -s "$${pair%%=*}" "$(DESTDIR)$${pair#*=}" || rm -f "$(DESTDIR)$${pair#*=}"; done

.PHONY: deb
deb: ## make a Debian package in dist/ (needs dpkg-deb)
	@rm -rf "$(DIST)/deb"
	@$(MAKE) -s install PREFIX=/usr DESTDIR="$(abspath $(DIST))/deb" RDMA=$(RDMA) VERSION=$(VERSION) HARDEN=yes
	@DEB_MAINTAINER="$(DEB_MAINTAINER)" GO="$(GO)" deb/build.sh "$(VERSION)" "$(abspath $(DIST))/deb" "$(abspath $(DIST))"
	@rm -rf "$(DIST)/deb"

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
