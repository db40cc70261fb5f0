#!/bin/bash
# Builds the AAR for Android, bindings/kotlin/target/bolmo-android-VERSION.aar, from the jar that scripts/kotlin.sh has
# made and a native library for each ABI.
#
#   ANDROID_NDK_HOME=NDK scripts/android.sh [REPOSITORY]    cross-builds the libraries, then puts the AAR together
#   scripts/android.sh --host LIBRARY [REPOSITORY]          puts this machine's library in place of each, for tests
#   scripts/android.sh --check                              only compiles for Android, without linking: needs no NDK
#
# With REPOSITORY, the AAR is installed into that Maven repository. API is the level that is linked for (26).
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
package=$PWD/bindings/kotlin
declare -A triples=([arm64-v8a]=aarch64-linux-android [x86_64]=x86_64-linux-android)
abis=(arm64-v8a x86_64)
api=${API:-26}

fail() { echo "android: $*" >&2; exit 1; }
# The standard library for a target, through rustup where it is missing.
has_std() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] || rustup target add "$1" >/dev/null 2>&1
}

if [ "${1-}" = --check ]; then
    # Both differ in the kernels for CPUs alone; those for x86-64 are compiled everywhere.
    triple=${triples[arm64-v8a]}
    if has_std "$triple"; then
        cargo check --quiet -p bolmo-jni --target "$triple"
        echo "android: bolmo-jni compiles for $triple"
    else
        echo "android: Rust's standard library for $triple can't be had; bolmo-jni was not compiled for it"
    fi
    exit
fi

version=$(sed -n '0,/<version>/s/.*<version>\(.*\)<.*/\1/p' "$package/pom.xml")
jar=$package/target/bolmo-$version.jar aar=$package/target/bolmo-android-$version.aar
[ -e "$jar" ] || fail "there is no $jar: run scripts/kotlin.sh first"

libraries=() options=()
if [ "${1-}" = --host ]; then
    options=(--any-machine)
    for abi in "${abis[@]}"; do libraries+=("$abi=$2"); done
    shift 2
else
    ndk=${ANDROID_NDK_HOME-}
    [ -n "$ndk" ] || fail "ANDROID_NDK_HOME is not set: set it to the folder of an Android NDK (r27 or newer)"
    tools=("$ndk"/toolchains/llvm/prebuilt/*/bin)
    tools=${tools[0]}
    for abi in "${abis[@]}"; do
        triple=${triples[$abi]}
        [ -x "$tools/$triple$api-clang" ] || fail "there is no $tools/$triple$api-clang: is $ndk an NDK, with API $api?"
        has_std "$triple" || fail "Rust's standard library for $triple is needed: rustup target add $triple"
        name=${triple//-/_}
        env "CARGO_TARGET_${name^^}_LINKER=$tools/$triple$api-clang" "CC_$name=$tools/$triple$api-clang" \
            "AR_$name=$tools/llvm-ar" CARGO_TARGET_DIR="$target/android" \
            cargo build --release -p bolmo-jni --target "$triple"
        "$tools/llvm-strip" --strip-unneeded -o "$target/android/$abi.so" \
            "$target/android/$triple/release/libbolmo_jni.so"
        libraries+=("$abi=$target/android/$abi.so")
    done
fi

scripts/aar.py make "$aar" "$jar" "${libraries[@]}"
scripts/aar.py check ${options[@]+"${options[@]}"} "$aar" "${abis[@]}"
if [ -n "${1-}" ]; then
    mvn -B -ntp -q -Dstyle.color=never -f "$package/pom.xml" install:install-file -Dfile="$aar" \
        -DpomFile="$package/android/pom.xml" -DlocalRepositoryPath="$(realpath -m "$1")"
fi
