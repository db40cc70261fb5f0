#!/bin/bash
# Trains a byte-level model from scratch: texts, a tokenizer, a subword model, and the two stages that byteify it.
# Everything goes to runs/ beside this script; an interrupted run continues where it stopped.
# Usage: `run.sh PATH-TO-BOLMO`, or without a path for the one that `make build` makes.
# SMALL=1 makes a smaller model from less text, for machines without a GPU.
set -euo pipefail
bolmo=$(realpath "${1:-$(dirname "$0")/../../target/release/bolmo}")
cd "$(dirname "$0")"
bytes=100000000 subword=() stage1=() stage2=()
if [ -n "${SMALL:-}" ]; then
    bytes=20000000
    subword=(--set model.new.hidden_size=64 --set model.new.intermediate_size=192)
    subword+=(--set batch.rows=8 --set optimiser.steps=2000)
    stage1=(--set model.local.intermediate_size=192 --set batch.rows=4 --set optimiser.steps=2400)
    stage2=(--set batch.rows=4 --set optimiser.steps=800)
fi
[ -e runs/texts/corpus.json ] ||
    "$bolmo" train corpus --out runs/texts --bytes $bytes --held-out-bytes 400000 --puzzle-share 0.2
[ -e runs/tokenizer/tokenizer_config.json ] ||
    "$bolmo" train tokenizer runs/texts/train.txt --prefixes --vocabulary 4096 --out runs/tokenizer
train() { # STAGE CONFIG [OPTION...]
    [ -e "runs/${2%.toml}/summary.json" ] || "$bolmo" train "$1" --config "$2" "${@:3}" --resume
}
# A few steps of each stage, to say how long all of them take.
if [ ! -e runs/subword ]; then
    rm -rf runs/measured
    measure() { # STAGE [OPTION...]
        "$bolmo" train "$1" --config "$1.toml" "${@:2}" --set "out=runs/measured/$1" --set optimiser.steps=4 \
            --set every.evaluate_batches=1 --quiet
    }
    echo "measuring a few steps of each stage"
    measure subword "${subword[@]}"
    measure stage1 "${stage1[@]}" --set model.source=runs/measured/subword/model
    measure stage2 "${stage2[@]}" --set model.student=runs/measured/stage1/model
    ./expected_time.py subword "${subword[@]}" -- stage1 "${stage1[@]}" -- stage2 "${stage2[@]}"
    rm -rf runs/measured
fi
train subword subword.toml "${subword[@]}"
train stage1 stage1.toml "${stage1[@]}"
train stage2 stage2.toml "${stage2[@]}"
