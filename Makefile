# What can be done here; `make` alone lists it. Rust and Go do the work, this file only names it.

K8S_MINORS := $(sort $(patsubst tests/control-plane/k8s-%,%,$(wildcard tests/control-plane/k8s-*)))
NEWEST     := $(lastword $(K8S_MINORS))

# Outside the source tree, so that a second clone does not build the same again.
CACHE := $(or $(DRIFTGUARD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/driftguard)

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY         := $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ         := $(CACHE)/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz

# How long `make fuzz` runs each target, and `make soak` in all.
SECONDS ?= 60
# Targets, each with its committed corpus.
FUZZED  := canonical:corpus review:corpora/reviews rewriting:corpora/reviews paths:corpora/paths \
           guard_spec:corpora/guards authorities:corpora/authorities sources:corpora/sources

# Everything at once, tests included: with fewer packages or targets cargo would choose other features of shared
# dependencies, and compile them a second time.
BUILD_ALL := cargo build --locked --workspace --all-targets
TARGET    := $(or $(CARGO_TARGET_DIR),target)
BUILT     := $(TARGET)/debug

# What `make bench` starts, all of one build.
BENCHED := driftguard driftguard-bench driftguard-bench-floors

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.DEFAULT_GOAL := help
.PHONY: help build dist control-plane gitops-tools up down demo test soak lint deny generate check-generated fuzz bench clean needs-rust needs-servers

help: ## Lists what can be made
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  K8S=1.33         for control-plane and up: one of $(K8S_MINORS)"
	@echo "  SECONDS=600      for fuzz: how long for each target; for soak: how long in all"
	@echo "  KUBEBUILDER_ASSETS, when set, is used instead of building etcd, kube-apiserver and kubectl"

build: needs-rust ## Builds the program: target/release/driftguard
	cargo build --locked --release --bin driftguard

dist: build ## Packs the program for kubectl's plugin manager: target/dist
	@deploy/krew/package $(TARGET)/dist $(VERSION) $(shell uname -s | tr A-Z a-z)/$(shell uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')=$(TARGET)/release/driftguard

control-plane: ## Builds the programs of a control plane, once (K8S=MINOR: only that version)
	@tests/control-plane/build $(K8S)

gitops-tools: ## Builds Helm and what applies manifests as Flux and Argo CD do, once
	@tests/gitops/build

up: needs-rust ## Starts a control plane to play with and prints how to use it (K8S=MINOR)
	@tests/control-plane/build $(or $(K8S),$(NEWEST))
	@$(BUILD_ALL)
	@$(BUILT)/control-plane up --kubernetes $(or $(K8S),$(NEWEST))

down: needs-rust ## Stops what `up` started
	@[ -x $(BUILT)/control-plane ] || $(BUILD_ALL)
	@$(BUILT)/control-plane down

demo: needs-rust ## Shows the main job on a real control plane; stops everything afterwards
	@tests/control-plane/build $(NEWEST)
	@echo "building driftguard; about five minutes with nothing cached" >&2
	$(BUILD_ALL)
	@$(BUILT)/demo $(BUILT)/driftguard

# Most of the time end-to-end tests wait for servers, so more of them run at once than there are cores.
test: export RUST_TEST_THREADS := $(or $(RUST_TEST_THREADS),$(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN)))
test: needs-rust needs-servers control-plane gitops-tools ## Tests everything, on real API servers
	cargo test --workspace --locked --no-fail-fast

lint: needs-rust ## Checks format and lints
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings

deny: $(CARGO_DENY) ## Checks licences, sources and banned crates of all dependencies
	$(CARGO_DENY) --locked check --hide-inclusion-graph bans licenses sources

generate: needs-rust ## Writes manifests, the schema of reports, and pages about commands anew from the code
	DRIFTGUARD_WRITE_GENERATED=1 cargo test --locked --workspace --test generated

check-generated: needs-rust ## Fails when a generated file is stale
	cargo test --locked --workspace --test generated

fuzz: $(CARGO_FUZZ) ## Fuzzes whatever reads bytes of others, one after the other (SECONDS=60 each)
	@# The pinned compiler, told to accept the sanitizers of a nightly one: no second toolchain is needed.
	@# The first folder takes what is found; the other ones are committed and stay as they are.
	@set -e; cd fuzz; for fuzzed in $(FUZZED); do \
	  mkdir -p corpus/$${fuzzed%:*}; \
	  RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ) run $${fuzzed%:*} corpus/$${fuzzed%:*} ../tests/core/$${fuzzed#*:} -- -max_total_time=$(SECONDS); \
	done

soak: SECONDS = 1800
soak: needs-rust ## Plays the model test with one fresh seed after the other (SECONDS=1800)
	@tests/control-plane/build $(NEWEST)
	DRIFTGUARD_SOAK_SECONDS=$(SECONDS) cargo test --locked --workspace --test e2e model::soak -- --ignored --nocapture

bench: needs-rust ## Measures cost and speed against floors (BENCH='--rounds 9': other options)
	@tests/control-plane/build $(NEWEST)
	cargo build --locked --release --workspace $(BENCHED:%=--bin %)
	@$(TARGET)/release/driftguard-bench $(BENCH)

clean: needs-rust ## Removes what was built here; the cache outside stays
	cargo clean
	rm -rf fuzz/target

# Built once a version. Without optimisation: they run for seconds, or only start something.
define install
@echo "building $(1) $(2), once; some minutes" >&2
cargo install --locked --debug --version $(2) --root $(CACHE)/tools/$(1)-$(2) $(1)
endef

$(CARGO_DENY): | needs-rust
	$(call install,cargo-deny,$(CARGO_DENY_VERSION))

$(CARGO_FUZZ): | needs-rust
	$(call install,cargo-fuzz,$(CARGO_FUZZ_VERSION))

# One line for each program that is missing; ring's assembly needs the C compiler.
needs-rust:
	@command -v cargo >/dev/null || { echo "cargo is not installed; get Rust at https://rustup.rs" >&2; exit 2; }
	@command -v $${CC:-cc} >/dev/null || { echo "no C compiler; install cc (Debian: apt install build-essential)" >&2; exit 2; }

# What the tests of git sources fetch from, and what others start.
needs-servers:
	@git http-backend </dev/null 2>&1 | grep -q '^Status: ' || { echo "git http-backend is missing; install git (Debian: apt install git)" >&2; exit 2; }
	@command -v ssh ssh-keygen >/dev/null || { echo "no ssh; install it (Debian: apt install openssh-client)" >&2; exit 2; }
	@command -v python3 >/dev/null || { echo "no python3, with which hashes are computed by hand; install it (Debian: apt install python3)" >&2; exit 2; }
	@command -v tmux >/dev/null || { echo "no tmux, in which commands are tried as a person types them; install it (Debian: apt install tmux)" >&2; exit 2; }
	@command -v bash >/dev/null || { echo "no bash, whose completion is tried; install it (Debian: apt install bash)" >&2; exit 2; }
	@[ -x /usr/sbin/sshd ] || { echo "/usr/sbin/sshd is missing; install it (Debian: apt install openssh-server)" >&2; exit 2; }
