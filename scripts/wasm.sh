#!/bin/bash
# Checks that bolmo-runtime builds for browsers (wasm32-unknown-unknown). Rust's standard library for that target comes from rustup,
# or where rustup cannot get it, from Debian's packages (scripts/wasm-toolchain.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown
build_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")

if [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target"; then
    cargo build --release --target "$target" -p bolmo-runtime
else
    echo "wasm: rustup cannot add $target; its standard library is built from Debian's packages instead" >&2
    [ -e "$build_dir/wasm-toolchain/env" ] || scripts/wasm-toolchain.sh "$build_dir/wasm-toolchain"
    . "$build_dir/wasm-toolchain/env"
    # Another compiler: in a folder of its own.
    CARGO_TARGET_DIR="$build_dir/wasm" cargo build --release --target "$target" -p bolmo-runtime
fi
