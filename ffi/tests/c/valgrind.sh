#!/bin/bash
# Runs a test program under valgrind's memcheck: ffi/tests/c/valgrind.sh PROGRAM [ARGUMENT...]
# Fails on errors, and on memory that is lost for good, unless valgrind.supp says that it is none of this project's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# The software driver compiles for the processor it finds: valgrind knows no AVX-512. Threads would only take turns.
export LP_NATIVE_VECTOR_WIDTH=128 LP_NUM_THREADS=0 BOLMO_THREADS=1
export BOLMO_SLOW_FACTOR=${BOLMO_SLOW_FACTOR:-50}
# Drivers that were unloaded have no names any more, see keep_loaded.c.
if [[ -n ${BOLMO_KEEP_LOADED:-} ]]; then export LD_PRELOAD=$BOLMO_KEEP_LOADED; fi
exec valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    --smc-check=all-non-file --num-callers=30 --suppressions="$here/valgrind.supp" "$@"
