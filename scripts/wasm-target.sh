# To be sourced from the repository's root: sees to it that cargo can build for wasm32-unknown-unknown. The standard library for that
# target comes from rustup, or where rustup cannot get it, from Debian's packages (scripts/wasm-toolchain.sh).
wasm_target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ] && ! rustup target add wasm32-unknown-unknown; then
    echo "wasm: rustup cannot add wasm32-unknown-unknown; its standard library is built from Debian's packages instead" >&2
    [ -e "$wasm_target_dir/wasm-toolchain/env" ] || scripts/wasm-toolchain.sh "$wasm_target_dir/wasm-toolchain"
    . "$wasm_target_dir/wasm-toolchain/env"
fi
