# What one does with kvs. `make` alone lists the targets.

CARGO ?= cargo

.PHONY: help demo run test check bench pauses torture doc clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: ## build, then show a server and a client at work
	@$(CARGO) build --quiet --release --bins
	@sh examples/demo.sh target/release

run: ## serve the current directory on 127.0.0.1:4000
	$(CARGO) run --release --bin kvs-server

test: ## run all tests
	$(CARGO) test

check: ## format, lints, documentation, builds without sled and of the benches
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items
	$(CARGO) build --no-default-features
	$(CARGO) bench --no-run

bench: ## time the engines and the servers side by side, and draw docs/figures.svg
	$(CARGO) bench --bench engines
	$(CARGO) bench --bench wire
	$(CARGO) bench --bench figures

pauses: ## show the slowest calls, disk and memory of millions of writes
	$(CARGO) run --release --example pauses

torture: ## lose power and fail disks for as long as TORTURE says
	ulimit -n 4096; KVS_TORTURE=$(or $(TORTURE),20) $(CARGO) test --release --tests -- --nocapture

doc: ## build the documentation
	$(CARGO) doc --no-deps --open

clean: ## remove what was built
	$(CARGO) clean
