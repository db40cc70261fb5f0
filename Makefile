# Everything a visitor or a maintainer runs. `make` alone lists it.
SHELL := /bin/bash
CARGO ?= cargo
target := $(or $(CARGO_TARGET_DIR),target)
# Where rustup puts cargo; shells that were open before its installation don't look there.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# A multiple of the cases that tests of random input have by default; each of the six then takes about four seconds.
FUZZ_FACTOR ?= 4
# `make` builds everything once.
export CARGO_INCREMENTAL ?= 0
# The command that the browser package is compared with; it is built unless somebody names one.
BOLMO = $(target)/release/bolmo
timed := scripts/timed.sh
# Where `make install` puts things; scripts/install.sh has the defaults.
export PREFIX DESTDIR LIBDIR
# A Maven repository that `make kotlin` installs into; without it, that of this user (~/.m2).
REPOSITORY ?=
# Options of `make bench-peers` and `make bench-llama`.
PEERS_OPTIONS ?=
LLAMA_OPTIONS ?=
# How llama.cpp is built.
LLAMA_CMAKE_ARGS ?= -DGGML_NATIVE=ON
# Options of `make dial`.
DIAL_OPTIONS ?=
# What `make demo` and `make picture` run.
prompt := This is a story about Mia,
# The model ends the story before --max-bytes does.
options := --temperature 0.5 --seed 5 --max-bytes 1000 --echo --show-patches

.DEFAULT_GOAL := help
.PHONY: help demo demo-model dial test bench benchmarks bench-burn bench-peers bench-llama bench-bindings build lint docs \
	install install-lib uninstall test-package test-c test-threads test-arm test-miri test-tint \
	test-cooperative header picture web test-web kotlin test-kotlin swift test-swift clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: build ## Set up, build, and write a little story with the demo model
	@echo; echo '$$ bolmo generate "$(prompt)" $(options)'; echo
	@$(target)/release/bolmo generate "$(prompt)" $(options)

# All is built by one `cargo test` over the same crates, the command and libbolmo included. With -p or --workspace
# cargo would choose other features of dependencies, and build these again.
test: ## Set up, check style, run every test
	@$(timed) "style and lints" $(MAKE) --no-print-directory lint
	@$(timed) "building the tests" $(CARGO) test --no-run
	@scripts/setup.sh shaders $(target)/debug/bolmo
	@$(MAKE) --no-print-directory test-tint
	@$(timed) "unit tests" env BOLMO_FUZZ_FACTOR=$(FUZZ_FACTOR) $(CARGO) test --lib --bins
	@$(timed) "tests on devices" scripts/test-suites.py $(target)/debug/bolmo
	@$(timed) "commands in README.md" scripts/test-readme.py $(target)/debug/bolmo
	@$(timed) "examples in the documentation" $(CARGO) test --doc
	@scripts/setup.sh c
	@$(timed) "the package" scripts/test-package.sh $(target)/debug/bolmo $(target)/debug/deps
	@$(timed) "the tests in C" scripts/test-c.sh $(target)/test-package/prefix

build: ## Build the bolmo command, optimized, as target/release/bolmo
	@scripts/setup.sh toolchain
	$(CARGO) build --release -p bolmo-cli

lint: ## Check format, style and imports, and run clippy
	@scripts/setup.sh lint
	@scripts/check-style.sh
	$(CARGO) fmt --all --check
	@# Lints of newer compilers are shown, and fail nothing.
	$(CARGO) clippy $(LINT_OPTIONS) --all-targets -- $$(rustc --version | grep -q ' 1\.95\.' && echo -D warnings)

docs: ## Build the documentation of the libraries, the C header's in doc-c
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@scripts/setup.sh docs
	@mkdir -p $(target)/doc-c
	cd ffi && DOC_OUTPUT=$(abspath $(target))/doc-c doxygen

install: ## Install the command and libbolmo into PREFIX (/usr/local), below DESTDIR if it is set
	@scripts/setup.sh toolchain
	@scripts/install.sh install

install-lib: ## Install libbolmo and its headers alone
	@scripts/setup.sh toolchain
	@scripts/install.sh install-lib

uninstall: ## Remove what either has installed
	@scripts/install.sh uninstall

test-package: ## Build what users get, install it into a temporary prefix, and run the examples in C and C++
	@scripts/setup.sh c
	@# One build of both: alone, each chooses other features of dependencies.
	@$(timed) "the command and the library, optimized" $(CARGO) build --release -p bolmo-cli -p bolmo-ffi
	@$(timed) "the package, optimized" scripts/test-package.sh $(target)/release/bolmo $(target)/release

test-c: ## Run the C tests of the ABI against what test-package has installed
	@scripts/setup.sh c
	@test -e $(target)/test-package/prefix/include/bolmo.h || $(MAKE) --no-print-directory test-package
	@$(timed) "the tests in C" scripts/test-c.sh $(target)/test-package/prefix

test-threads: ## Run the C tests with threads under ThreadSanitizer; takes minutes to build
	@scripts/setup.sh c
	@$(timed) "threads under ThreadSanitizer" scripts/test-threads.sh

test-miri: ## Run kernels for CPUs with small inputs under Miri; needs a nightly toolchain, takes minutes
	@$(timed) "kernels for CPUs under Miri" scripts/test-miri.sh

test-arm: ## Test the CPU device's code for 64-bit Arm, under QEMU on other machines
	@scripts/setup.sh arm
	@$(timed) "the CPU device on 64-bit Arm" scripts/test-arm.sh

test-tint: ## Compile every kernel that browsers can run with Tint, the compiler of Chromium
	@scripts/setup.sh nodejs
	@$(timed) "kernels through Tint" scripts/test-tint.sh $(target)/tint

test-cooperative: ## Test cooperative matrices on a newer software driver, which it fetches (Debian only)
	@scripts/newer-mesa.sh $(target)/newer-mesa
	@$(timed) "cooperative matrices on a newer driver" env BOLMO_ADAPTER=software BOLMO_TILES=cooperative8 $(CARGO) test \
		--config 'target."cfg(all())".runner="$(abspath $(target))/newer-mesa/run"' \
		--test device -- kernels::matmul self_test::

header: ## Make ffi/include/bolmo.h from the sources, and record the ABI in ffi/abi.txt
	BOLMO_UPDATE=1 $(CARGO) test --test abi header::

demo-model: build ## Train the demo model: minutes on a large GPU, hours on a CPU (SMALL=1: a smaller one, in minutes)
	examples/byteify/run.sh $(target)/release/bolmo
	cp examples/byteify/runs/stage2/model/* examples/demo-model/

dial: build ## Train wider patches from the models of demo-model, and draw their cost: examples/byteify/charts/dial.svg
	@test -x $(target)/dial/bin/python || python3 -m venv $(target)/dial
	@$(target)/dial/bin/pip install --quiet -r examples/byteify/requirements.txt
	cd examples/byteify && $(abspath $(target))/dial/bin/python dial.py $(abspath $(target))/release/bolmo $(DIAL_OPTIONS)

picture: build ## Draw docs/demo.svg from a fresh run of the demo model
	scripts/picture.py docs/demo.svg $(target)/release/bolmo "$(prompt)" $(options)

bench: build ## Run bolmo bench on a preset (PRESET=mid) in every format, and save the runs in benches/runs/
	scripts/bench.sh $(target)/release/bolmo $(target)/bench-models

benchmarks: build ## Make benches/BENCHMARKS.md from the saved runs in benches/runs/
	$(target)/release/bolmo bench --table benches/runs/*.json > benches/BENCHMARKS.md

bench-burn: ## Time our kernels beside those of burn's wgpu backend, saved in benches/runs/; takes long to build
	@scripts/setup.sh toolchain
	@mkdir -p benches/runs
	cd benches/burn && \
		CARGO_TARGET_DIR=$(abspath $(target))/burn $(CARGO) run --release --locked -- --save ../runs/burn.json

# candle decides when it is compiled whether its kernels convert f16 by instructions, so it is compiled for this machine.
# The flags build everything anew, hence a target folder of its own.
bench-peers: ## Time our matrix products on the CPU beside those of gemm, candle and burn; takes long to build
	@scripts/setup.sh toolchain
	@mkdir -p benches/runs
	cd benches/peers && RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$(abspath $(target))/peers \
		$(CARGO) run --release --locked -- --save ../runs/peers.json $(PEERS_OPTIONS)

# Wheels of llama-cpp-python are not on PyPI, so pip compiles llama.cpp, for this machine's instructions.
bench-llama: $(if $(filter file,$(origin BOLMO)),build) ## Time bolmo bench and llama.cpp in turns on the CPU; builds both
	@scripts/setup.sh llama
	@mkdir -p benches/runs
	@test -x $(target)/llama/bin/python || python3 -m venv $(target)/llama
	CMAKE_ARGS="$(LLAMA_CMAKE_ARGS)" $(target)/llama/bin/pip install --quiet -r benches/llama/requirements.txt
	$(target)/llama/bin/python benches/llama/bench.py --bolmo $(BOLMO) --save benches/runs/llama.json $(LLAMA_OPTIONS)

bench-bindings: ## Compare CPU time per byte through Kotlin and Swift with that through C; saves it in benches/runs/
	@scripts/setup.sh c
	@mkdir -p benches/runs
	benches/bindings/run.sh --save benches/runs/bindings.json

web: ## Build the browser package (bindings/web/dist) and the example page (examples/web/dist)
	@scripts/setup.sh toolchain
	@scripts/setup.sh nodejs
	scripts/web.sh

test-web: $(if $(filter file,$(origin BOLMO)),build) ## Build the browser package and test it in Chromium and Firefox
	@scripts/setup.sh browser
	@# Tests in Firefox are left out where it cannot be installed.
	@scripts/setup.sh firefox || true
	@# The command runs on the browser's own driver, for which it needs a Vulkan loader.
	@scripts/setup.sh shaders $(BOLMO)
	@$(timed) "the browser package" $(MAKE) --no-print-directory web
	@$(timed) "tests in a browser" scripts/test-web.sh $(BOLMO)

kotlin: ## Build the Kotlin package, optimized, and install it into this user's Maven repository (or REPOSITORY)
	@scripts/setup.sh kotlin
	scripts/kotlin.sh "" "$(REPOSITORY)"

test-kotlin: ## Test the Kotlin package, from its jar too, and the AAR for Android
	@scripts/setup.sh kotlin
	@# The same build as that of `make test`.
	@$(CARGO) test --quiet --no-run
	@scripts/setup.sh shaders $(target)/debug/bolmo
	@$(timed) "the Kotlin package" scripts/test-kotlin.sh $(target)/debug/deps $(target)/debug/bolmo

swift: ## Build the Swift package, with a library that it installs into target/swift/prefix
	@scripts/setup.sh toolchain
	@scripts/setup.sh swift $(target)/swift
	@PREFIX=$(abspath $(target))/swift/prefix LIBDIR=lib DESTDIR= scripts/install.sh install-lib
	@$(timed) "the Swift package" scripts/swift.sh $(target)/swift/prefix swift build \
		--scratch-path $(abspath $(target))/swift/build

test-swift: ## Test the Swift package against what test-package has installed; left out where Swift 6 cannot be had
	@if $(timed) "Swift 6" scripts/setup.sh swift $(target)/swift; then \
		scripts/setup.sh c && \
		{ test -e $(target)/test-package/prefix/bin/bolmo || $(MAKE) --no-print-directory test-package; } && \
		$(timed) "the Swift package" scripts/test-swift.sh $(target)/test-package/prefix; \
	else \
		echo "== no Swift 6: the Swift package was not tested"; \
	fi

clean: ## Remove everything that was built
	$(CARGO) clean
