#!/usr/bin/env python3
"""Measures what wider patches cost and bring: models trained for them, and the boundary bias of generation.

    dial.py BOLMO [--steps N] [--rows N]

Bits per byte are measured in two ways. *Reading* is the loss of training: boundaries come from the predictor, which
sees the next byte, and the flags of patch ends are part of what is predicted; once over rows as in training and once
over whole documents. *Deciding* goes byte by byte: whether a patch ends is decided as in generation, without the next
byte, and flags are summed over. The boundary bias exists only there.

Starts from runs/stage2/model of run.sh. Trains it further, once as it is and once to each ratio by each kind of
compression, and measures all of these models, and the first one with boundary biases, on the same held-out text. Their
speeds are measured at the end, in turns. Everything goes to runs/dial; a call that was interrupted continues. Prints the
table of README.md, and writes dial.json and charts/dial.svg beside this script. Needs matplotlib.
"""
import argparse
import json
import subprocess
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot, ticker

# Bytes per patch aimed at, in units of the tokenizer's. Patches of `words` grow as far as their rule says.
RATIOS = {"bpe": [1.25, 1.5, 2.0], "entropy": [1.25, 1.5, 2.0], "words": [2.0]}
BIASES = [-4.0, -3.0, -2.0, -1.0, 0.0, 2.0]
DIAL = Path("runs/dial")
SOURCE = "runs/subword/model"
START = "runs/stage2/model"
# Bytes of held-out text that are decided byte by byte.
TEXT_BYTES = 60_000
ROUNDS = 5


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


def evaluate(bolmo: str, run_folder: Path, text: Path, saved: Path, *options: str) -> dict:
    """What `bolmo eval` finds, unless that is saved."""
    if not saved.exists():
        found = run(bolmo, "eval", "--model", run_folder / "model", "--adapter", "cpu", "--quiet", "--json",
                    "--text-file", text, "--teacher", SOURCE, *options)
        saved.write_text(found)
    return json.loads(saved.read_text())


def measure_speeds(bolmo: str, points: list[dict]) -> None:
    """Adds bytes per second of decoding, and of prompts where they have patches of their own, to each point: the
    best of runs in turns, because other work on the machine only slows a run down."""
    phases = {"decode": "width", "prefill": "reading_width"}
    found = [{phase: [] for phase, width in phases.items() if width in point} for point in points]
    for _ in range(ROUNDS):
        for point, speeds in zip(points, found):
            for phase, values in speeds.items():
                width = max(point[phases[phase]], 1.0)
                bench = run(bolmo, "bench", "--model", point["model"], "--adapter", "cpu", "--quiet", "--json",
                            "--prompt-bytes", "1024", "--decode-bytes", "1024", "--runs", "1",
                            "--bytes-per-patch", width)
                values.append(json.loads(bench)[phase]["bytes_per_second"]["median"])
    for point, speeds in zip(points, found):
        point.update({phase: max(values) for phase, values in speeds.items()})


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

    def add(series: str, label: str, folder: Path, bias: float) -> None:
        saved = DIAL / f"{series}-{label}-deciding.json"
        found = evaluate(bolmo, folder, text, saved, "--suite", "--boundary-bias", str(bias))
        deciding, suite = found["text"], found["suite"][-1]
        point = {
            "series": series,
            "label": label,
            "model": str(folder / "model"),
            "source": deciding["teacher_bits_per_byte"],
            "width": deciding["bytes_per_patch"],
            "deciding": deciding["bits_per_byte_folded"],
            "as_the_tokenizer": deciding["boundary_accuracy"],
            "suite": suite["accuracy"],
        }
        if series != "bias":
            rows = last_evaluation(folder)
            reading = evaluate(bolmo, folder, text, DIAL / f"{series}-{label}-reading.json")["text"]
            point |= {
                "reading_width": reading["bytes_per_patch"],
                "documents": reading["bits_per_byte_joint"],
                "rows": rows["bits_per_byte"],
                "boundaries": rows["boundary_accuracy"],
                # Measured by reading.
                "suite_bits": suite["answer_bits_per_byte"],
            }
        points.append(point)

    natural_run = train(bolmo, "natural", steps, rows, [])
    add("natural", "1.0", natural_run, 0.0)
    for kind, ratios in RATIOS.items():
        for ratio in ratios:
            options = [f"compression.kind={kind}", f"compression.target={ratio * natural}"]
            # Between the tokenizer's patches and those of a rule, the choice is random, so there is nothing to learn.
            options += [f"compression.steps={1 if kind == 'words' else steps // 3}"]
            options += [f"compression.entropies={SOURCE}"] if kind == "entropy" else []
            out = train(bolmo, f"{kind}-{ratio}", steps, rows, options)
            add(kind, str(ratio), out, 0.0)
    for bias in BIASES:
        add("bias", f"{bias:g}", natural_run, bias)
    measure_speeds(bolmo, points)
    return points


NAMES = {
    "natural": "trained, natural",
    "bpe": "trained, `bpe`",
    "entropy": "trained, `entropy`",
    "words": "trained, `words`",
    "bias": "boundary bias",
}


def name(point: dict) -> str:
    """What a point is, as in the table."""
    of_rule = point["series"] in ("natural", "words")
    return NAMES[point["series"]] + ("" if of_rule else f": {point['label']}")


def table(points: list[dict]) -> str:
    columns = ["dial", "bytes a patch, reading", "bits per byte, rows", "documents", "boundaries right",
               "suite's answers", "prompt, B/s", "bytes a patch, deciding", "bits per byte", "as the tokenizer's",
               "suite right", "decode, B/s"]
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]

    def bits(point: dict, key: str) -> str:
        """The value, and how far it is from the natural model's."""
        value = f"{point[key]:.4f}"
        return value if point is points[0] else f"{value} ({point[key] / points[0][key] - 1:+.1%})"

    for p in points:
        reading = [""] * 6
        if "rows" in p:
            reading = [f"{p['reading_width']:.2f}", bits(p, "rows"), bits(p, "documents"), f"{p['boundaries']:.2%}",
                       bits(p, "suite_bits"), f"{p['prefill']:.0f}"]
        cells = [name(p), *reading, f"{p['width']:.2f}", bits(p, "deciding"), f"{p['as_the_tokenizer']:.2%}",
                 f"{p['suite']:.1%}", f"{p['decode']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(points: list[dict], path: Path) -> None:
    pyplot.rcParams.update({"svg.hashsalt": "dial", "font.size": 9})
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.6), layout="constrained")
    panels = [
        ("rows", "bits per byte, reading rows", 1),
        ("documents", "bits per byte, reading documents", 1),
        ("deciding", "bits per byte, deciding", 1),
        ("suite_bits", "answers about characters, bits per byte", 1),
        ("decode", "decoded bytes per second", 1),
        ("boundaries", "boundaries right, %", 100),
    ]
    for axis, (key, title, factor) in zip(axes.flat, panels):
        for series, marker in zip(NAMES, "*osD^"):
            # Lines begin at the natural model.
            starts = ("natural",) if series in ("bpe", "entropy") else ()
            width = "reading_width" if key in ("rows", "documents", "boundaries", "suite_bits") else "width"
            of = sorted((p[width], factor * p[key]) for p in points if p["series"] in (series, *starts) and key in p)
            if of:
                axis.plot(*zip(*of), marker=marker, markersize=9 if series == "natural" else 5, linewidth=1.2,
                          label=NAMES[series].replace("`", ""))
        if key == "decode":
            axis.set_ylim(bottom=0)
        axis.set_xlabel("bytes per patch")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0, 2].set_yscale("log")
    axes[0, 2].yaxis.set_major_formatter(ticker.ScalarFormatter())
    axes[0, 2].yaxis.set_minor_formatter(ticker.ScalarFormatter())
    axes[0, 2].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bolmo")
    parser.add_argument("--steps", type=int, default=2400, help="steps of each model")
    parser.add_argument("--rows", type=int, default=4, help="examples of a step")
    args = parser.parse_args()
    points = measure(args.bolmo, args.steps, args.rows)
    Path("dial.json").write_text(json.dumps(points, indent=1) + "\n")
    draw(points, Path("charts/dial.svg"))
    print(table(points), end="")


if __name__ == "__main__":
    main()
