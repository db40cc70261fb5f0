#!/bin/bash
# Runs the C tests of the ABI against an installed library: scripts/test-c.sh PREFIX [BUILD-FOLDER] They run with gcc,
# with clang and sanitizers on the C side, and under valgrind. Tools that are missing are named and skipped.
# BOLMO_LIBRARY and BOLMO_INCLUDE_DIR name a library that is not installed, in place of PREFIX.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
prefix=${1:-}
build=${2:-${CARGO_TARGET_DIR:-$root/target}/c-tests}
if [[ -n ${BOLMO_LIBRARY:-} ]]; then
    find=(-DBOLMO_LIBRARY="$BOLMO_LIBRARY" -DBOLMO_INCLUDE_DIR="${BOLMO_INCLUDE_DIR:-$root/ffi/include}")
elif [[ -n $prefix ]]; then
    find=(-DCMAKE_PREFIX_PATH="$(cd "$prefix" && pwd)" -DBOLMO_LIBRARY= -DBOLMO_INCLUDE_DIR=)
else
    echo "usage: scripts/test-c.sh PREFIX [BUILD-FOLDER]" >&2
    exit 2
fi
mkdir -p "$build"
log=$build/log.txt
failed=0

# step NAME COMMAND...: prints one line, and the command's output if it failed. A failure fails the script at its end.
step() {
    local name=$1 begin=$SECONDS
    shift
    if "$@" >"$log" 2>&1; then
        echo "$name: passed, $((SECONDS - begin)) s"
    else
        cat "$log" >&2
        echo "$name: FAILED, $((SECONDS - begin)) s"
        failed=1
    fi
}

# compiled NAME COMPILER OPTION...: configures and builds in a folder of that name
compiled() {
    local name=$1 compiler=$2
    shift 2
    step "building with $name" bash -c \
        'cmake -S "$0" -B "$1" -DCMAKE_C_COMPILER="$2" "${@:3}" && cmake --build "$1" -j 2' \
        "$root/ffi/tests/c" "$build/$name" "$compiler" "${find[@]}" "$@"
}

# tests NAME FOLDER OPTION...
tests() {
    local name=$1 folder=$2
    shift 2
    step "tests with $name" ctest --test-dir "$build/$folder" --output-on-failure -j 2 "$@"
}

compiled gcc gcc -DBOLMO_VALGRIND=ON
tests gcc gcc -LE valgrind
if command -v clang >/dev/null; then
    compiled sanitizers clang -DBOLMO_SANITIZE=address,undefined
    # Without the test that measures times, and the longest one.
    tests sanitizers sanitizers -E '^(cancel|order)$'
else
    echo "clang is not installed: no run with sanitizers"
fi
if command -v valgrind >/dev/null; then
    tests valgrind gcc -L valgrind
else
    echo "valgrind is not installed: no run under it"
fi
exit $failed
