#!/usr/bin/env python3
"""Measures what wider patches cost and bring: models trained for them, and the boundary bias of generation.

    dial.py BOLMO [--steps N] [--rows N]

Starts from runs/stage2/model of run.sh. Trains it further, once as it is and once to each ratio by each kind of merges,
and measures all of these models, and the first one with boundary biases, on the same held-out text. Everything goes to
runs/dial; a call that was interrupted continues. Writes dial.md, dial.json and charts/dial.svg beside this script.
Needs matplotlib.
"""
import argparse
import json
import subprocess
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

RATIOS = [1.25, 1.5, 2.0]
KINDS = ["bpe", "entropy"]
BIASES = [-8.0, -6.0, -4.0, -3.0, -2.0, 0.0, 4.0]
DIAL = Path("runs/dial")
SOURCE = "runs/subword/model"
START = "runs/stage2/model"
# Bytes of held-out text that are decided byte by byte.
TEXT_BYTES = 60_000


def run(*words: str) -> str:
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True).stdout


def last_evaluation(folder: Path) -> dict:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [record for record in records if record["kind"] == "eval"][-1]


def train(bolmo: str, name: str, steps: int, rows: int, options: list[str]) -> Path:
    """Trains a model further, unless that is done."""
    out = DIAL / name
    if not (out / "summary.json").exists():
        settings = [f"out={out}", f"model.student={START}", f"optimiser.steps={steps}", f"batch.rows={rows}"]
        settings += [f"every.evaluate={steps}", "every.evaluate_batches=24", *options]
        words = [word for setting in settings for word in ("--set", setting)]
        subprocess.run([bolmo, "train", "stage2", "--config", "stage2.toml", "--resume", *words], check=True)
    return out


def evaluate(bolmo: str, model: str, bias: float, text: Path, saved: Path) -> dict:
    """Bits per byte, boundaries, the suite and the speed of a model, with a boundary bias of generation."""
    if saved.exists():
        return json.loads(saved.read_text())
    common = ["--model", model, "--adapter", "cpu", "--quiet", "--json"]
    measured = json.loads(run(bolmo, "eval", *common, "--text-file", text, "--teacher", SOURCE, "--suite",
                              "--boundary-bias", bias))
    found, suite = measured["text"], measured["suite"][-1]
    width = found["bytes_per_patch"]
    bench = json.loads(run(bolmo, "bench", *common, "--prompt-bytes", "1024", "--decode-bytes", "256", "--runs", "5",
                           "--bytes-per-patch", max(width, 1.0)))
    point = {
        "bytes_per_patch": width,
        "bits_per_byte": found["bits_per_byte_folded"],
        "source_bits_per_byte": found["teacher_bits_per_byte"],
        "as_the_tokenizer": found["boundary_accuracy"],
        "suite": suite["accuracy"],
        "suite_bits": suite["answer_bits_per_byte"],
        "decode": bench["decode"]["bytes_per_second"]["median"],
        "prefill": bench["prefill"]["bytes_per_second"]["median"],
    }
    saved.write_text(json.dumps(point))
    return point


def held_out() -> Path:
    """The first documents of the held-out text."""
    path = DIAL / "text.txt"
    if not path.exists():
        text = Path("runs/texts/held_out.txt").read_text()
        path.write_text(text[: text.index("<|endoftext|>", TEXT_BYTES)])
    return path


def measure(bolmo: str, steps: int, rows: int) -> list[dict]:
    DIAL.mkdir(parents=True, exist_ok=True)
    text, points = held_out(), []
    natural = last_evaluation(Path("runs/stage2"))["bytes_per_patch"]

    def add(series: str, label: str, model: str, bias: float, boundaries: float | None) -> None:
        point = evaluate(bolmo, model, bias, text, DIAL / f"{series}-{label}.json")
        points.append({"series": series, "label": label, "boundaries": boundaries, **point})

    out = train(bolmo, "natural", steps, rows, [])
    plain = str(out / "model")
    boundaries = last_evaluation(out)["boundary_accuracy"]
    for kind in KINDS:
        add(kind, "1.0", plain, 0.0, boundaries)
        for ratio in RATIOS:
            options = [f"compression.kind={kind}", f"compression.target={ratio * natural}"]
            options += [f"compression.steps={steps // 3}"]
            options += [f"compression.entropies={SOURCE}"] if kind == "entropy" else []
            out = train(bolmo, f"{kind}-{ratio}", steps, rows, options)
            add(kind, str(ratio), str(out / "model"), 0.0, last_evaluation(out)["boundary_accuracy"])
    for bias in BIASES:
        add("bias", f"{bias:g}", plain, bias, None)
    return points


NAMES = {"bpe": "trained, merged by `bpe`", "entropy": "trained, merged by `entropy`", "bias": "boundary bias"}


def table(points: list[dict]) -> str:
    lines = ["| dial | bytes a patch | bits per byte | boundaries right | as the tokenizer's | suite right | "
             "suite, bits a byte | decode, B/s | prompt, B/s |", "|---|" + "---:|" * 8]
    for p in points:
        right = "" if p["boundaries"] is None else f"{p['boundaries']:.2%}"
        lines.append(f"| {NAMES[p['series']]}: {p['label']} | {p['bytes_per_patch']:.2f} | {p['bits_per_byte']:.4f} | "
                     f"{right} | {p['as_the_tokenizer']:.2%} | {p['suite']:.1%} | {p['suite_bits']:.3f} | "
                     f"{p['decode']:.0f} | {p['prefill']:.0f} |")
    return "\n".join(lines) + "\n"


def draw(points: list[dict], path: Path) -> None:
    pyplot.rcParams.update({"svg.hashsalt": "dial", "font.size": 9})
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    panels = [
        ("bits_per_byte", "bits per byte", 1),
        ("suite", "questions right, %", 100),
        ("decode", "decoded bytes/s", 1),
    ]
    for axis, (key, title, factor) in zip(axes, panels):
        for series, marker in zip(NAMES, "os^"):
            of = sorted((p["bytes_per_patch"], factor * p[key]) for p in points if p["series"] == series)
            axis.plot(*zip(*of), marker=marker, markersize=4, linewidth=1.2, label=NAMES[series].replace("`", ""))
        axis.set_xlabel("bytes per patch")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bolmo")
    parser.add_argument("--steps", type=int, default=2400, help="steps of each model")
    parser.add_argument("--rows", type=int, default=8, help="examples of a step")
    args = parser.parse_args()
    points = measure(args.bolmo, args.steps, args.rows)
    Path("dial.json").write_text(json.dumps(points, indent=1) + "\n")
    Path("dial.md").write_text(table(points))
    draw(points, Path("charts/dial.svg"))
    print(table(points), end="")


if __name__ == "__main__":
    main()
