#!/bin/bash
# Tests the built browser package and the built example page in Chromium (CHROMIUM, or /usr/bin/chromium).
#
#   scripts/test-web.sh BOLMO [TEST…]     BOLMO is the built command, which has to write the same text; tests: files of tests/web
set -euo pipefail
cd "$(dirname "$0")/.."

BOLMO=$(realpath "$1")
export BOLMO
shift
npm_ci() { (cd "$1" && npm ci --silent --no-audit --no-fund --ignore-scripts); }

# The border to JavaScript is compiled for browsers only, so it is linted here. A compiler that is not rustup's has no clippy of its own.
scripts/setup.sh lint
. scripts/wasm-target.sh
if [ -z "${RUSTC-}" ] && rustc --version | grep -q ' 1\.95\.'; then
    CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/wasm \
        cargo clippy --target wasm32-unknown-unknown -p bolmo-web --features constraints -- -D warnings
fi

npm_ci tests/web
# One after the other: a browser that plays a GPU takes the whole machine.
run() { timeout --signal=INT 1800 node --test --test-concurrency=1 --test-reporter=spec "$@"; }
if [ "$#" != 0 ]; then
    run "$@"
    exit
fi
run tests/web/*.test.js
npm_ci examples/web
run examples/web/test/*.test.js
