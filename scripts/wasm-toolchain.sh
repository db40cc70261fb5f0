#!/bin/bash
# Makes a Rust toolchain for wasm32-unknown-unknown from Debian's packages, for machines whose rustup has none.
#
#   scripts/wasm-toolchain.sh DIR    then: . DIR/env && cargo build --target wasm32-unknown-unknown …
#
# Debian's `rustc-web` has its sources but no standard library for this target, so that is built here, once. It takes
# a few minutes and 600 MB in DIR. Needs no root. Needs apt's lists (apt-get update), rustup's cargo and rust-lld.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
target=wasm32-unknown-unknown
dir=$(realpath -m "$1")
usr=$dir/root/usr
mkdir -p "$dir/packages" "$dir/bin" "$dir/std/src"

# The compiler, its library for this machine, its sources, and the LLVM that it is linked with.
depends() { apt-cache depends "$1" | awk -v want="Depends: $2" 'index($0, want) { print $2; exit }'; }
library=$(depends libstd-rust-web-dev libstd-rust-web-)
llvm=$(depends "${library:?apt-cache knows no rustc-web: run apt-get update}" libllvm)
(cd "$dir/packages" && apt-get download rustc-web libstd-rust-web-dev rust-web-src "$library" "$llvm")
for package in "$dir"/packages/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
cat >"$dir/bin/rustc" <<END
#!/bin/sh
LD_LIBRARY_PATH=$usr/lib/$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec $usr/bin/rustc "\$@"
END
chmod +x "$dir/bin/rustc"
if ! "$dir/bin/rustc" -V; then
    echo "wasm: rustc-web lacks a library; try: apt-get install libz3-4 libxml2 libedit2" >&2
    exit 1
fi
host=$(rustc -vV | sed -n 's/^host: //p')
ln -sf "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" "$dir/bin/rust-lld"

# The standard library: it is built for an empty crate, then copied to where the compiler looks for it.
cat >"$dir/std/Cargo.toml" <<END
[package]
name = "empty"
edition = "2024"
[workspace]
END
echo '#![no_std]' >"$dir/std/src/lib.rs"
(
    cd "$dir/std"
    export RUSTC="$dir/bin/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$dir/std/target"
    cargo build --release --target "$target" -Zbuild-std=std,panic_abort
)
mkdir -p "$usr/lib/rustlib/$target/lib"
cp "$dir/std/target/$target/release/deps/"*.rlib "$usr/lib/rustlib/$target/lib/"
rm -rf "$usr/lib/rustlib/$target/lib/"libempty* "$dir/std" "$dir/packages" "$usr/share"

cat >"$dir/env" <<END
export RUSTC=$dir/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$dir/bin/rust-lld
END
