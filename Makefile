# The everyday commands; `make` alone lists them.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run demo test lint bench bench-instructions bench-limits bench-counts bench-load bench-scale release-pgo fuzz image static deb sbom

# Pinned, so that `make lint` fails for what was changed here and for nothing else.
DENY_VERSION := 0.20.2
DENY := target/tools/bin/cargo-deny
DEB_VERSION := 3.8.0
DEB := target/tools/bin/cargo-deb
CYCLONEDX_VERSION := 0.5.9
CYCLONEDX := target/tools/bin/cargo-cyclonedx
FUZZ_VERSION := 0.13.2
FUZZ := target/tools/bin/cargo-fuzz

# The harness and its runner have to be of one version.
RUNNER_VERSION := $(shell awk '/^name = "gungraun"$$/ { getline; gsub(/"/, ""); print $$3 }' Cargo.lock)
RUNNER := target/tools/bin/gungraun-runner

# How long `make fuzz` tries each target.
FUZZ_SECONDS := 60

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

run: ## Run the proxy with ./config/cxgate.toml
	cargo run --release --locked -- run

demo: ## Show what it does, with nothing else installed
	cargo run --release --locked -- demo

# With the feature `otel`, so that one build of the tests holds all of it: where no endpoint for traces is set, it does what the
# default build does, and what that refuses is tested without a build of its own. `make lint` compiles both.
test: ## Run every test; installs redis-server, chromium and faketime first where missing
	@.ci/test-dependencies
	@mkdir -p target
	@set -o pipefail; code=0; \
	{ cargo test --locked --features otel --all-targets --no-fail-fast && cargo test --locked --features otel --doc; } | tee target/test.log || code=$$?; \
	awk '/^test result:/ { passed += $$4; failed += $$6 } END { printf "%d passed, %d failed\n", passed, failed }' target/test.log; \
	exit $$code

lint: $(DENY) ## Check formatting, lints, documentation, licences and advisories
	cargo fmt --check
	cargo clippy --locked --all-targets --features bench -- -D warnings
	cargo clippy --locked --all-targets --features bench,otel -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --features otel --no-deps --document-private-items
	$(DENY) --locked check --hide-inclusion-graph bans licenses sources
	@if $(DENY) --log-level off fetch db; then \
		$(DENY) --locked --offline check --hide-inclusion-graph advisories; \
	else \
		echo "WARNING: security advisories were NOT checked: the RustSec database cannot be reached" >&2; \
	fi

bench: bench-instructions bench-load ## Count instructions, and measure load beside peers

bench-instructions: bench-counts ## Count instructions, and fail where they grew by more than 5 %
	@benches/instructions/compare

bench-limits: bench-counts ## Take today's counts for the limits that bench-instructions holds to
	@benches/instructions/compare --renew

# The allocator is told to leave out a tidying that it does once, sometimes, and that depends on what was freed long before.
bench-counts: $(RUNNER)
	@.ci/bench-dependencies
	@rm -rf target/gungraun
	GUNGRAUN_ENVS=GLIBC_TUNABLES=glibc.malloc.mxfast=0 PATH="$(abspath $(dir $(RUNNER))):$$PATH" cargo bench --locked --features bench --bench instructions

# Of the program as it is released. 10,000 connections need as many files.
bench-load: ## Measure load beside nginx, HAProxy and Traefik
	cargo bench --locked --profile release --features bench --bench load

bench-scale: ## Measure load as there is more of everything
	ulimit -n $$(ulimit -Hn); cargo bench --locked --profile release --features bench --bench load -- --scale

release-pgo: ## Build target/pgo/cxgate, optimised by what a run under load shows
	@.ci/release-pgo

# Without a sanitizer, which needs a nightly compiler: there is no unsafe code here for one to watch. What is found anew is
# kept below target/; copy into fuzz/corpus what is worth replaying.
fuzz: $(FUZZ) ## Fuzz every target for FUZZ_SECONDS each
	@set -e; for target in $$($(FUZZ) list); do \
		mkdir -p target/fuzz-found/$$target; \
		$(FUZZ) run --sanitizer none $$target target/fuzz-found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=5; \
	done

image: ## Build the container image cxgate
	docker build -t cxgate .

# The target is named so that build scripts, which load libraries, are not linked so. Names are resolved from /etc/hosts and by DNS.
static: ## Build a binary that needs nothing beside it, target/static/cxgate
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $$(rustc --print host-tuple)
	@mkdir -p target/static
	objcopy --compress-debug-sections=zlib target/$$(rustc --print host-tuple)/release/cxgate target/static/cxgate

deb: $(DEB) ## Build a Debian package, target/debian/cxgate_*.deb
	cargo build --release --locked
	@mkdir -p target/deb
	objcopy --compress-debug-sections=zlib target/release/cxgate target/deb/cxgate
	target/release/cxgate man > target/deb/cxgate.1
	@for shell in bash zsh fish; do target/release/cxgate completions $$shell > target/deb/cxgate.$$shell || exit; done
	$(DEB) --no-build --output target/debian/

# It lists too much rather than too little: parts of dependencies that only tests turn on are among them.
sbom: $(CYCLONEDX) ## List what the binary is made of, as CycloneDX: target/cxgate.cdx.json
	$(CYCLONEDX) cyclonedx --format json --describe binaries --spec-version 1.5
	mv cxgate_bin.cdx.json target/cxgate.cdx.json
$(FUZZ):
	cargo install cargo-fuzz --version $(FUZZ_VERSION) --locked --root target/tools

$(DENY):
	cargo install cargo-deny --version $(DENY_VERSION) --locked --root target/tools

$(DEB):
	cargo install cargo-deb --version $(DEB_VERSION) --locked --root target/tools

$(CYCLONEDX):
	cargo install cargo-cyclonedx --version $(CYCLONEDX_VERSION) --locked --root target/tools

# Without optimisation: it starts valgrind, and waits.
$(RUNNER):
	cargo install --debug gungraun-runner --version $(RUNNER_VERSION) --locked --root target/tools
