# One-line verbs, no logic. `make` alone names them.
SCALELAB = target/release/scalelab

help:
	@echo "make demo-local    a monolith against microservices in two minutes, nothing else needed"
	@echo "make compare-arch  the full study, at most twenty minutes"
	@echo "make faults        a service dies under load, a replica is killed: eighteen minutes"
	@echo "make check         format, lints, tests"
	@echo "make test          tests alone"
	@echo "make bench         speeds, each as a ratio to a peer in the same run (wants wrk and nginx)"
	@echo "make soak          half an hour: memory and open files stay flat, two hundred faults lose nothing"

need:
	@command -v cargo >/dev/null || { echo "cargo is missing: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: apt-get install build-essential"; exit 1; }

build: need
	cargo build --release --locked

demo-local: build
	$(SCALELAB) run task-tracker/demo-local

compare-arch: build
	$(SCALELAB) run task-tracker/compare-arch

faults: build
	$(SCALELAB) run task-tracker/faults
	$(SCALELAB) run task-tracker/replica-kill

check: need
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked

test: need
	cargo test --locked

bench: need
	cargo bench --locked --bench peers

soak: need
	cargo bench --locked --bench soak

.PHONY: help need build demo-local compare-arch faults check test bench soak
