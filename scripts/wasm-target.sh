# Sourced from the repository's root. Makes cargo able to build for wasm32-unknown-unknown. The standard library for
# that target comes from rustup, or, where rustup has none, from Debian's packages (scripts/wasm-toolchain.sh).
wasm_target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ] &&
    ! rustup target add wasm32-unknown-unknown; then
    echo "wasm: rustup cannot add wasm32-unknown-unknown: building its standard library from Debian's packages" >&2
    [ -e "$wasm_target_dir/wasm-toolchain/env" ] || scripts/wasm-toolchain.sh "$wasm_target_dir/wasm-toolchain"
    . "$wasm_target_dir/wasm-toolchain/env"
fi
