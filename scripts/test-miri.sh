#!/bin/bash
# Runs tests of the kernels for CPUs under Miri, in portable code: accesses outside of memory, aliasing and races are
# errors. Needs a nightly toolchain with Miri (`rustup toolchain install nightly --component miri,rust-src`).
#
#   scripts/test-miri.sh [TEST…]    by default kernels with small inputs, which takes minutes
#
# Attention, choices of the sampler and products of many rows are left out, because they take too long, and so are tests
# that compare the bits of NaN, which Miri draws at random.
set -euo pipefail
cd "$(dirname "$0")/.."
export MIRIFLAGS="${MIRIFLAGS-} -Zmiri-disable-isolation"
[ "$#" != 0 ] || set -- boundary copy gather_rows::tests::sizes matvec::tests::sizes \
    matmul::tests::sizes mlstm_cell mlstm_chunk_scan mlstm_chunk_state mlstm_gates \
    mlstm_norm mlstm_step rms_norm rope sample::tests::indices silu_mul tile
cargo +nightly miri test -p bolmo-shaders --lib --target-dir "${CARGO_TARGET_DIR:-target}/miri" -- "${@/#/simd::}"
