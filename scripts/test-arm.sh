#!/bin/bash
# Runs tests of the CPU device for 64-bit Arm, with its NEON code: on such a machine as they are, else under QEMU.
#
#   scripts/test-arm.sh [kernels|all]    kernels: the fast forms of kernels beside their references; all (the default):
#                                        golden files, mLSTM cells and equivalences of whole models too
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
triple=aarch64-unknown-linux-gnu
options=()
if [ "$(uname -sm)" != "Linux aarch64" ]; then
    options=(--target "$triple")
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
fi
export BOLMO_ADAPTER=cpu
cargo test "${options[@]}" -p bolmo-shaders --lib -- simd::
[ "$what" = kernels ] || cargo test "${options[@]}" -p bolmo-tests --test device -- \
    kernels:: golden:: mlstm_cell:: decode:: quantized:: equivalence::byte_by_byte equivalence::batch_rows
