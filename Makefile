# The few commands people type. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test test-in-parallel test-one-by-one test-contract test-client test-jaeger check check-alerts alerts-live chaos chaos-refunds bench stack-up stack-down

STACK := deploy/local/stack

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Demo and tests use the same binaries, with the kill points of the crash tests compiled in but not armed: so the two can
# run at the same time, and the second build is free. Release builds have none (make check proves it).
BUILD := --locked --workspace --all-features
PROGRAMS := --bin returns-api --bin outbox-relay --bin refund-consumer --bin returnsctl

demo: ## start everything and show a return going through; ONCE=1 ends after one round
	cargo build $(BUILD) $(PROGRAMS) --bin demo
	$(STACK) run demo -- target/debug/demo $(if $(ONCE),--once)

# Most tests wait most of the time, so there are more threads than cores. Tests that freeze a process or a connection have
# leases and deadlines to keep, and run with fewer. Tests that kill servers or measure times run one at a time, under MySQL's
# default durability.
TIMED := refunds::frozen:: refunds::suspended:: cuts::

test: ## all tests, on a real MySQL and a real Kafka of their own
	cargo test $(BUILD) --no-run
	cargo test $(BUILD) --no-run --test e2e_exclusive
	MYSQL_DURABILITY=relaxed $(STACK) run test -- $(MAKE) test-in-parallel
	$(STACK) run test-exclusive -- $(MAKE) test-one-by-one

test-in-parallel:
	RUST_TEST_THREADS=8 cargo test $(BUILD) --no-fail-fast -- --skip exclusive:: $(TIMED:%=--skip %)
	RUST_TEST_THREADS=3 cargo test $(BUILD) --no-fail-fast --test e2e_it --test relay_it -- $(TIMED)
	target/debug/contract --short

test-one-by-one:
	RUST_TEST_THREADS=1 cargo test $(BUILD) --no-fail-fast --test e2e_exclusive
	RUST_TEST_THREADS=1 cargo test $(BUILD) --test refund_consumer_it exclusive::

test-contract: ## 20,000 requests made from openapi.json, valid and invalid, every answer checked; about ten minutes
	cargo build $(BUILD) $(PROGRAMS) --bin contract
	$(STACK) run contract -- target/debug/contract

test-client: ## a client generated from openapi.json files and reads a return
	cargo build $(BUILD) $(PROGRAMS) --bin contract
	$(STACK) run contract -- target/debug/contract --client

test-jaeger: ## reads a return's traces back from a real Jaeger; Go compiles it once, in about ten minutes
	cargo build $(BUILD) $(PROGRAMS) --bin trace-check
	$(STACK) run jaeger -- deploy/local/jaeger run -- target/debug/trace-check

check: ## format, lints, documentation, structure; no servers needed
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo clippy --locked --workspace --all-features --test e2e_exclusive -- -D warnings
	cargo clippy --locked --workspace --features shared/one-build -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --features shared/one-build
	deploy/check-layout.sh

check-alerts: ## the alerts of deploy/prometheus: their syntax, and a test of each; needs no servers
	deploy/local/prometheus check

alerts-live: ## each trouble is made, and its alert must fire within 90 seconds and end; about twenty minutes
	cargo build $(BUILD) $(PROGRAMS) --bin alerts-live
	MYSQL_DURABILITY=relaxed $(STACK) run alerts -- target/debug/alerts-live

chaos: ## relays killed, frozen and stopped while two million events flow; about seven minutes
	cargo build $(BUILD) $(PROGRAMS) --bin chaos
	$(STACK) run chaos -- target/debug/chaos

chaos-refunds: ## consumers killed while they pay, at random, at each step and amid rebalances; about half an hour
	cargo build $(BUILD) $(PROGRAMS) --bin chaos-refunds
	$(STACK) run chaos -- target/debug/chaos-refunds

bench: ## load and report, on release builds; wants slowhttptest (Debian) for a part
	cargo build --locked --release -p api -p relay -p refund-consumer -p ctl -p bench
	$(STACK) run bench -- target/release/bench filing
	$(STACK) run bench -- target/release/bench auth
	$(STACK) run bench -- target/release/bench streams
	MYSQL_BUFFER_POOL_MIB=3072 $(STACK) run bench -- target/release/bench traces
	$(STACK) run bench -- target/release/bench hostile
	MYSQL_BUFFER_POOL_MIB=3072 $(STACK) run bench -- target/release/bench reads
	MYSQL_BUFFER_POOL_MIB=3072 $(STACK) run bench -- target/release/bench relay
	MYSQL_BUFFER_POOL_MIB=3072 $(STACK) run bench -- target/release/bench refunds

stack-up: ## start (or find) the development MySQL and Kafka; writes .stack/env
	$(STACK) up

stack-down: ## stop them; the data stays
	$(STACK) down
