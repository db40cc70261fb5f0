#!/bin/bash
# Runs the C tests of the ABI against an installed library: scripts/test-c.sh PREFIX [BUILD-FOLDER]
# With gcc; with clang and sanitizers on the C side; under valgrind. What is not installed is said and left out.
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

# step NAME COMMAND...: one line, and what the command said if it failed. All steps are run; the script fails in the end.
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

# compiled NAME COMPILER OPTION...: configures and builds in a folder of its own.
compiled() {
    local name=$1 compiler=$2
    shift 2
    step "building with $name" bash -c 'cmake -S "$0" -B "$1" -DCMAKE_C_COMPILER="$2" "${@:3}" && cmake --build "$1" -j 2' \
        "$root/ffi/tests/c" "$build/$name" "$compiler" "${find[@]}" "$@"
}

# tests NAME FOLDER OPTION...
tests() {
    local name=$1 folder=$2
    shift 2
    step "tests with $name" ctest --test-dir "$build/$folder" --output-on-failure "$@"
}

compiled gcc gcc -DBOLMO_VALGRIND=ON
tests gcc gcc -LE valgrind
if command -v clang >/dev/null; then
    compiled sanitizers clang -DBOLMO_SANITIZE=address,undefined
    # All but the one that is about time, and the one that takes most of it.
    tests sanitizers sanitizers -E '^(cancel|order)$'
else
    echo "clang is not installed: no run with sanitizers"
fi
if command -v valgrind >/dev/null; then
    tests valgrind gcc -L valgrind -j 2
else
    echo "valgrind is not installed: no run under it"
fi
exit $failed
