#!/usr/bin/env python3
"""Says how long the stages of run.sh take, from the steps measured in runs/measured.

    expected_time.py STAGE [OPTION…] [-- STAGE [OPTION…]]…

The options are those of `bolmo train`, of which `--set optimiser.steps=N` counts here.
"""
import itertools
import json
import sys
import tomllib
from pathlib import Path


def steps(stage: str, options: list[str]) -> int:
    """The number of steps of a stage."""
    for option in options:
        if option.startswith("optimiser.steps="):
            return int(option.partition("=")[2])
    return tomllib.loads(Path(f"{stage}.toml").read_text())["optimiser"]["steps"]


def seconds(stage: str) -> float:
    """The time of the last of the measured steps. The first one includes what is made once."""
    records = [json.loads(line) for line in Path(f"runs/measured/{stage}/metrics.jsonl").open()]
    times = [record["seconds"] for record in records if record["kind"] == "train"]
    return times[-1] - times[-2]


total = 0.0
for divider, words in itertools.groupby(sys.argv[1:], lambda word: word == "--"):
    if divider:
        continue
    stage, *options = words
    count, each = steps(stage, options), seconds(stage)
    total += count * each
    print(f"  {stage}: {count} steps of {each:.2f} s, {count * each / 60:.0f} minutes")
print(f"  together about {total / 60:.0f} minutes" if total < 7200 else f"  together about {total / 3600:.1f} hours")
