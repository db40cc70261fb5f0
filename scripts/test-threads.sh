#!/bin/bash
# Runs the C tests that use several threads under ThreadSanitizer. The library, without training, and the standard
# library are built for it, which takes minutes. Stable Rust needs RUSTC_BOOTSTRAP for the sanitizer; this build is
# never installed.
#
#   scripts/test-threads.sh [SUBJECT…]    by default threads, cancel, busy and batch, of ffi/tests/c
#
# They run on the adapter that BOLMO_ADAPTER names, by default the CPU device: its threads are the library's own.
set -euo pipefail
cd "$(dirname "$0")/.."
export BOLMO_ADAPTER=${BOLMO_ADAPTER:-cpu}
[ "$#" != 0 ] || set -- threads cancel busy batch
triple=$(rustc -vV | sed -n 's/^host: //p')
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/threads
mkdir -p "$target"

[ "$triple" = x86_64-unknown-linux-gnu ] || { echo "test-threads: not for $triple, left out"; exit 0; }
if ! rustup component add rust-src >"$target/log" 2>&1; then
    cat "$target/log" >&2
    echo "test-threads: there is no source of the standard library, left out"
    exit 0
fi
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
    cargo build --quiet -Zbuild-std --target "$triple" --target-dir "$target" -p bolmo-ffi --lib --no-default-features
# Programs look for the library by its SONAME.
cp "$target/$triple/debug/libbolmo.so" "$target/libbolmo.so.0"

# Older runtimes of the sanitizer lack three functions that newer compilers call. It intercepts their replacements.
cat >"$target/missing.c" <<'END'
#include <string.h>
__attribute__((weak)) void *__tsan_memset(void *to, int byte, size_t size) { return memset(to, byte, size); }
__attribute__((weak)) void *__tsan_memcpy(void *to, const void *from, size_t size) { return memcpy(to, from, size); }
__attribute__((weak)) void *__tsan_memmove(void *to, const void *from, size_t size) { return memmove(to, from, size); }
END
# This library is built for the sanitizer, unlike the one that users install.
grep -v '^called_from_lib:libbolmo' ffi/package/tsan.supp >"$target/suppressions"
gcc -O0 -fno-builtin -c "$target/missing.c" -o "$target/missing.o"
for subject; do
    gcc -fsanitize=thread -g -std=c11 -D_XOPEN_SOURCE=700 \
        -DBOLMO_TEST_MODEL="\"$PWD/tests/golden/infer/models/nano_trained\"" \
        -DGOLDEN_FOLDER="\"$PWD/ffi/tests/c\"" -Iffi/include \
        "ffi/tests/c/test_$subject.c" "$target/missing.o" -rdynamic \
        -o "$target/test_$subject" "$target/libbolmo.so.0" -Wl,-rpath,"$target" -lpthread
    TSAN_OPTIONS="suppressions=$target/suppressions ignore_noninstrumented_modules=1 exitcode=66" BOLMO_SLOW_FACTOR=20 \
        "$target/test_$subject"
done
