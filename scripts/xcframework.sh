#!/bin/bash
# Builds libbolmo for Apple systems, as an XCFramework that Package.swift takes: macOS, iOS and its simulator.
#
#   scripts/xcframework.sh           needs a Mac with Xcode and rustup; writes bindings/swift/CBolmo.xcframework, and
#                                    target/xcframework/CBolmo.xcframework.zip, whose checksum it prints
#   scripts/xcframework.sh check     compiles the library for iOS as far as that goes without Apple's linker; runs on
#                                    any system with rustup. Status 3: Rust's standard library for iOS cannot be had
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$(realpath "${CARGO_TARGET_DIR:-target}" 2>/dev/null || echo "$root/${CARGO_TARGET_DIR:-target}")
work=$target/xcframework
out=$root/bindings/swift/CBolmo.xcframework
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

fail() { echo "xcframework: $*" >&2; exit 1; }

# add TARGET…: the standard library for each. The status is 3 where it cannot be had.
add() {
    local reason="there is no rustup"
    if command -v rustup >/dev/null; then
        rustup --quiet target add "$@" >"$work/log" 2>&1 && return
        reason=$(grep -m 1 '^error' "$work/log" || tail -n 1 "$work/log")
    fi
    echo "xcframework: Rust's standard library for $* cannot be had: $reason" >&2
    exit 3
}

mkdir -p "$work"
if [ "${1-}" = check ]; then
    add aarch64-apple-ios
    # In a folder of its own: for other targets cargo selects other features of what host and target share.
    CARGO_TARGET_DIR=$work/check cargo check --quiet -p bolmo-ffi --target aarch64-apple-ios
    echo "xcframework: libbolmo compiles for aarch64-apple-ios"
    exit
fi
[ "$#" = 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(uname)" = Darwin ] || fail "this needs a Mac, because only Xcode links for Apple systems. On Linux, the Swift \
package uses the library that \`make install-lib\` installs"
xcodebuild -version >/dev/null 2>&1 || fail "this needs Xcode: install it, and select it with \`xcode-select -s\`"

# Package.swift says which systems the package supports.
oldest() { sed -n "s/.*\.$1(\.v\([0-9]*\)).*/\1.0/p" Package.swift | head -n 1; }
MACOSX_DEPLOYMENT_TARGET=$(oldest macOS)
IPHONEOS_DEPLOYMENT_TARGET=$(oldest iOS)
[ -n "$MACOSX_DEPLOYMENT_TARGET" ] && [ -n "$IPHONEOS_DEPLOYMENT_TARGET" ] ||
    fail "Package.swift doesn't say the oldest macOS and iOS"
export MACOSX_DEPLOYMENT_TARGET IPHONEOS_DEPLOYMENT_TARGET

# Each slice with its targets.
slices=(
    "macos-arm64_x86_64 aarch64-apple-darwin x86_64-apple-darwin"
    "ios-arm64 aarch64-apple-ios"
    "ios-arm64_x86_64-simulator aarch64-apple-ios-sim x86_64-apple-ios"
)
options=() names=()
for slice in "${slices[@]}"; do
    read -r name triples <<<"$slice"
    read -ra triples <<<"$triples"
    add "${triples[@]}"
    libraries=()
    for triple in "${triples[@]}"; do
        # rustc says what a program has to link besides, also if the library was built before.
        cargo rustc --release -p bolmo-ffi --lib --crate-type staticlib --target "$triple" \
            -- --print native-static-libs 2>&1 | tee "$work/log" >&2
        sed -n 's/^note: native-static-libs: //p' "$work/log" >"$work/needs"
        [ -s "$work/needs" ] || fail "rustc didn't say what libbolmo.a needs for $triple"
        mkdir -p "$work/$triple"
        cp "$target/$triple/release/libbolmo.a" "$work/$triple/"
        strip -S "$work/$triple/libbolmo.a"
        libraries+=("$work/$triple/libbolmo.a")
    done
    mkdir -p "$work/$name"
    rm -rf "$work/$name/headers"
    lipo -create "${libraries[@]}" -output "$work/$name/libbolmo.a"
    # "-framework Metal -lobjc" becomes "framework:Metal objc"; what Swift links in any case is left out.
    read -ra needs <<<"$(sed 's/-framework  */framework:/g; s/-l//g' "$work/needs" | tr ' ' '\n' |
        grep -vE '^(System|c|m)?$' | awk '!seen[$0]++' | tr '\n' ' ')"
    scripts/xcframework.py headers "$work/$name/headers" ${needs[@]+"${needs[@]}"}
    options+=(-library "$work/$name/libbolmo.a" -headers "$work/$name/headers")
    names+=("$name")
done

rm -rf "$out"
xcodebuild -create-xcframework "${options[@]}" -output "$out" >&2
scripts/xcframework.py check "$out" "${names[@]}"
rm -f "$work/CBolmo.xcframework.zip"
scripts/xcframework.py pack "$out" "$work/CBolmo.xcframework.zip"
