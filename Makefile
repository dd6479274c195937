# make run         build and start a complete private mail system; Ctrl-C stops it
# make run-clean   stop and remove that private system
# make check       install what the tests need, then all tests, clippy and fmt
# make bench       side-by-side benchmarks of mail and look-ups
# make bench-supervision   the same of supervision and logging
# make soak        1,000 services killed at random for SOAK_MINUTES
# make fuzz        every fuzz target for FUZZ_SECONDS
# make build       build everything (PROFILE=release|dev|dist)
# make stage       build and install into target/stage
# make install     install (DESTDIR=, PREFIX=/usr); needs no network

PROFILE ?= release
PREFIX ?= /usr
DESTDIR ?=
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

profile_dir = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
LIST = $(CARGO_TARGET_DIR)/$(profile_dir)/built.list
INDIMAIL_STAGE ?= $(abspath $(CARGO_TARGET_DIR)/stage)
# Where the private system of `make run` lives; empty: svctool's own choice.
TRY_DIR ?=
TRY = $(INDIMAIL_STAGE)/usr/sbin/svctool try $(if $(TRY_DIR),--dir $(TRY_DIR))

.PHONY: all build stage install run run-clean check bench bench-supervision soak fuzz clean

all: build

build:
	@scripts/build $(PROFILE) $(LIST)

# A fresh tree each time, so that nothing of an older build stays in it.
stage: build
	@rm -rf $(INDIMAIL_STAGE)
	@scripts/install $(LIST) $(INDIMAIL_STAGE) /usr
	@echo "stage: $(INDIMAIL_STAGE)"

$(LIST):
	@CARGO_FLAGS=--offline scripts/build $(PROFILE) $(LIST) || \
	    { echo "install: fatal: not built yet: run make first, it fetches what it needs" >&2; exit 1; }

install: $(LIST)
	@scripts/install $(LIST) "$(DESTDIR)" "$(PREFIX)"

run:
	@scripts/prepare build
	@$(MAKE) --no-print-directory stage
	@$(TRY)

run-clean:
	@if [ -x $(INDIMAIL_STAGE)/usr/sbin/svctool ]; then $(TRY) --clean; fi

check:
	@scripts/check

bench:
	@scripts/prepare test
	@$(MAKE) --no-print-directory stage PROFILE=release
	@cargo run --quiet --locked --release -p bench -- --stage $(INDIMAIL_STAGE) all

bench-supervision:
	@scripts/prepare bench
	@$(MAKE) --no-print-directory stage PROFILE=release
	@cargo build --quiet --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench --stage $(INDIMAIL_STAGE) supervision

# Services and supervisors killed at random: none lost, none twice, nobody grows.
SOAK_MINUTES ?= 10
soak:
	@scripts/prepare build
	@$(MAKE) --no-print-directory stage PROFILE=release
	@cargo build --quiet --locked --release -p bench
	@$(CARGO_TARGET_DIR)/release/bench --stage $(INDIMAIL_STAGE) soak --minutes $(SOAK_MINUTES)

clean:
	@cargo clean

# Every fuzz target for a while, also after one has failed; needs cargo-fuzz. Built apart from the rest: with
# other flags, nothing could be shared.
FUZZ_SECONDS ?= 10
FUZZ_TARGET_DIR ?= $(abspath $(CARGO_TARGET_DIR))/fuzz
fuzz: export CARGO_TARGET_DIR = $(FUZZ_TARGET_DIR)
fuzz:
	@command -v cargo-fuzz >/dev/null || { echo "fuzz: fatal: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
	@cargo fuzz build -s none
	@failed=; for t in $$(cargo fuzz list); do echo "fuzz: $$t"; \
	    cargo fuzz run -s none $$t -- -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 || failed="$$failed $$t"; \
	done; [ -z "$$failed" ] || { echo "fuzz: fatal: failed:$$failed: see fuzz/artifacts" >&2; exit 1; }
