#!/bin/bash
# Tests the built browser package and the built example page in Chromium (CHROMIUM, or /usr/bin/chromium),
# and the package in Firefox (FIREFOX, or /usr/bin/firefox-esr) where there is one.
#
#   scripts/test-web.sh BOLMO [TEST…]     BOLMO is the built command, whose output is the reference; TEST is a file of
#                                         tests/web, by default all run
set -euo pipefail
cd "$(dirname "$0")/.."

BOLMO=$(realpath "$1")
export BOLMO
shift
npm_ci() { (cd "$1" && npm ci --silent --no-audit --no-fund --ignore-scripts); }

# The crate is compiled for browsers only, so it is linted here. A compiler that is not from rustup has no clippy.
scripts/setup.sh lint
. scripts/wasm-target.sh
if [ -z "${RUSTC-}" ] && rustc --version | grep -q ' 1\.95\.'; then
    # lint FOLDER FLAGS OPTION…
    lint() {
        CARGO_TARGET_DIR=$build_dir/$1 RUSTFLAGS="${RUSTFLAGS-} $2" \
            cargo clippy --target wasm32-unknown-unknown -p bolmo-web "${@:3}" -- -D warnings
    }
    build_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
    lint wasm "" --features constraints
    lint wasm-cpu "-C target-feature=+simd128" --no-default-features --features constraints
fi

npm_ci tests/web
# One after the other: a browser with a software GPU uses the whole machine.
run() { timeout --signal=INT 1800 node --test --test-concurrency=1 --test-reporter=spec "$@"; }
if [ "$#" != 0 ]; then
    run "$@"
    exit
fi
run tests/web/*.test.js
npm_ci examples/web
run examples/web/test/*.test.js
