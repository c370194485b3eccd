# Tasks of developers. `make` lists the targets.

CARGO ?= cargo
# Cargo's target directory, which CARGO_TARGET_DIR or a configuration may change.
TARGET = $(shell $(CARGO) metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

.PHONY: help demo run test check bench pauses torture doc clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: ## build, then show a server and a client at work
	@echo 'Building kvs-server and kvs-client; the first time takes about a minute.'
	$(CARGO) build --release --bins
	@sh examples/demo.sh "$(TARGET)/release"

run: ## serve a store below the target directory on 127.0.0.1:4000
	$(CARGO) run --release --bin kvs-server -- --dir "$(TARGET)/kvs-data"

test: ## run all tests
	$(CARGO) test

check: ## check format, lints, documentation, benches, and the build without sled
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items
	$(CARGO) build --no-default-features
	$(CARGO) bench --no-run

bench: ## benchmark against sled and Redis, and write docs/figures.md
	$(CARGO) bench --bench engines
	ulimit -n 4096; $(CARGO) bench --bench wire
	$(CARGO) bench --bench figures

pauses: ## write millions of records; report the slowest call, disk and memory
	$(CARGO) run --release --example pauses

torture: ## run the fault-injection tests TORTURE times as long (20)
	ulimit -n 4096; KVS_TORTURE=$(or $(TORTURE),20) $(CARGO) test --release --tests -- --nocapture

doc: ## build the documentation
	$(CARGO) doc --no-deps --open

clean: ## remove all build output
	$(CARGO) clean
