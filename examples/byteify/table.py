#!/usr/bin/env python3
"""Prints the evaluations of runs as tables: table.py runs/stage1 runs/stage2"""
import json
import sys

COLUMNS = [
    ("step", "step", "{:d}"),
    ("bits_per_byte", "bits per byte", "{:.4f}"),
    ("teacher_bits_per_byte", "teacher", "{:.4f}"),
    ("boundary_accuracy", "boundary accuracy", "{:.2%}"),
    ("bytes_per_patch", "bytes per patch", "{:.2f}"),
    ("target_bytes_per_patch", "target", "{:.2f}"),
]

for run in sys.argv[1:]:
    with open(f"{run}/metrics.jsonl", encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    # The target of a schedule of wider patches is recorded with the steps.
    targets = {r["step"]: r["target_bytes_per_patch"] for r in records if "target_bytes_per_patch" in r}
    rows = [r for r in records if r["kind"] == "eval"]
    for r in rows:
        if r["step"] in targets:
            r["target_bytes_per_patch"] = targets[r["step"]]
    columns = [c for c in COLUMNS if any(c[0] in r for r in rows)]
    print(f"\n`{run}`, {records[-1]['step']} steps\n")
    print("| " + " | ".join(title for _, title, _ in columns) + " |")
    print("|" + "---|" * len(columns))
    for r in rows:
        print("| " + " | ".join(form.format(r[key]) if key in r else "" for key, _, form in columns) + " |")
