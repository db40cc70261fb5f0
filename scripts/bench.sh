#!/usr/bin/env bash
# Runs `bolmo bench` on a preset with random weights in every format. Saves a run as
# benches/runs/ADAPTER-PRESET-FORMAT.json.
# usage: scripts/bench.sh BOLMO FOLDER    checkpoints go into FOLDER
# PRESET, DTYPE, BYTES_PER_PATCH, FORMATS and BENCH_OPTIONS choose the runs; BOLMO_ADAPTER chooses the adapter.
set -euo pipefail
bolmo=$1 folder=$2
preset=${PRESET:-mid} dtype=${DTYPE:-f32} patch=${BYTES_PER_PATCH:-5} formats=${FORMATS:-f32 f16 q8 q4}
adapter=${BOLMO_ADAPTER:-auto}

# Without what drivers add in parentheses, but not cut off at the marks in names of CPUs, such as Intel(R).
name=$("$bolmo" devices --adapter "$adapter" | sed -n 's/^\* *[0-9]* *//p' | sed 's/([RTMC]*)//g; s/ *(.*//' |
    tr 'A-Z' 'a-z' | tr -cs 'a-z0-9' '-')
name=${name%-}
[ -n "$name" ] || { echo "error: no adapter can be used; see bolmo devices" >&2; exit 1; }

model=$folder/$preset
[ -e "$model" ] || "$bolmo" init --preset "$preset" --dtype "$dtype" --out "$model"
mkdir -p benches/runs
for format in $formats; do
    echo "== $preset $format on $name" >&2
    # shellcheck disable=SC2086 # options are several words
    "$bolmo" bench --model "$model" --adapter "$adapter" --quantize "$format" --bytes-per-patch "$patch" \
        ${BENCH_OPTIONS:-} --save "benches/runs/$name-$preset-$format.json"
done
