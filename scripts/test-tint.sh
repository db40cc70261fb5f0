#!/bin/bash
# Compiles every kernel variant that standard WebGPU can express with Tint, the WGSL compiler of Chromium. Needs no
# GPU and no driver.
#
#   scripts/test-tint.sh FOLDER      the kernels' sources and Tint go into FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
rm -rf "$folder/wgsl"
mkdir -p "$folder"
# Without -p, so that the program that `cargo test` built is run.
cargo run --quiet --example write_wgsl -- "$folder/wgsl"
cp scripts/tint/* "$folder"
(cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts)
# Cooperative matrices are an extension of WGSL by wgpu.
find "$folder/wgsl" -name '*.wgsl' ! -name '*cooperative*' -print0 | sort -z |
    timeout 300 xargs -0 node "$folder/check.mjs"
