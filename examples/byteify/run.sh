#!/bin/bash
# From nothing to a byte-level model: texts, a tokenizer, a subword model, and the two stages that byteify it. Everything goes to runs/
# beside this script; a run that was stopped goes on where it was. `run.sh PATH-TO-BOLMO`, or the one that `make build` makes.
set -euo pipefail
bolmo=$(realpath "${1:-$(dirname "$0")/../../target/release/bolmo}")
cd "$(dirname "$0")"
[ -e runs/texts/corpus.json ] || "$bolmo" train corpus --out runs/texts --bytes 20000000 --held-out-bytes 200000 --puzzle-share 0.2
[ -e runs/tokenizer/tokenizer_config.json ] || "$bolmo" train tokenizer runs/texts/train.txt --vocabulary 1024 --out runs/tokenizer
for stage in subword stage1 stage2; do
    [ -e runs/$stage/summary.json ] || "$bolmo" train $stage --config $stage.toml --resume
done
# What wider patches cost.
[ -e runs/compressed/summary.json ] || "$bolmo" train stage2 --config compressed.toml --resume
