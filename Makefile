# Two commands matter: `make run` and `make test`. Both set up what is missing first, and work a second time without network.

SHELL := /bin/bash
target := $(or $(CARGO_TARGET_DIR),target)
# The features of the whole workspace, so that `make run` and `make test` share what they compile.
build := cargo build --profile quick --locked --workspace

.PHONY: run test check bench prove clean

# Everything in one process, with its own PostgreSQL, NATS server and object store under ./data. Ctrl-C stops it.
# Options for `bowerbird up` go into UP: make run UP="--listen 0.0.0.0 --public-host nas.lan"
run:
	@scripts/setup
	$(build) --bin bowerbird
	@PATH="$(CURDIR)/.tools/bin:$$PATH" exec $(target)/quick/bowerbird up $(UP)

# Every test, against real servers.
test:
	@scripts/setup --test
	$(build) --bin bowerbird
	@scripts/test

# What comes before a commit: formatting, lints, house rules, generated files.
check:
	@scripts/setup --check
	cargo fmt --all --check
	scripts/check-house
	cargo clippy --workspace --all-targets --profile quick --locked -- -D warnings
	@scripts/check-supply
	@scripts/check-generated

# The slow proofs: crash loops, clocks that jump, schema fuzzing, clients of other languages, a browser.
prove:
	@scripts/setup --prove
	cargo build --profile quick --locked --workspace --all-targets
	@scripts/prove

# Measurements beside peers, with the profile that is shipped.
bench:
	@scripts/setup --bench
	cargo build --profile dist --locked -p bowerbird -p bowerbird-bench
	@scripts/bench

clean:
	cargo clean
	rm -rf .tools
