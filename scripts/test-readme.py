#!/usr/bin/env python3
"""Runs the commands of README.md, in order, and compares what they print with what README.md shows.

    scripts/test-readme.py BOLMO

Blocks marked `console` are run. Of `bolmo` in blocks marked `sh`, only the options are checked. The commands run in a
temporary folder with stand-ins for the files that they name: a small random model for bolmo-1b, a short text for
book.txt. Commands that need more than that are listed in NOT_RUN, each with the reason. A command without output in
README.md must succeed; its output may be anything.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = {
    "git diff |": "depends on the working tree",
    "bolmo merge": "needs three models; scripts and tests of `merge` run it",
    "--preset mid": "writes and measures a model of 800 MB",
    "--model mid-random": "writes and measures a model of 800 MB",
}
# Outputs that depend on the machine: only the status counts.
MACHINE = ["bolmo devices"]


def blocks(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)


def commands(text):
    """Pairs of a command and the output that is shown below it."""
    for block in blocks(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def main():
    bolmo = Path(sys.argv[1]).resolve()
    text = (ROOT / "README.md").read_text()
    failures, run = [], 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        environment = {**os.environ, "PATH": f"{bolmo.parent}:{os.environ['PATH']}", "BOLMO_ADAPTER": "cpu"}

        def shell(command):
            return subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=300,
            )

        (folder / "file.schema.json").write_text(blocks(text, "json")[0])
        (folder / "book.txt").write_text("One day, Mia was hungry. She went to the kitchen.\n")
        # As published: the tokenizer is elsewhere, and its config is that of the byte-level model.
        made = shell(
            "bolmo init --preset nano --out bolmo-1b && mkdir dolma2 && mv bolmo-1b/tokenizer* dolma2 && "
            "echo '{\"tokenizer_class\": \"BolmoTokenizer\"}' >bolmo-1b/tokenizer_config.json"
        )
        if made.returncode:
            sys.exit(f"test-readme: {made.stderr}")
        for command, shown in commands(text):
            if any(pattern in command for pattern in NOT_RUN):
                continue
            run += 1
            result = shell(command)
            if result.returncode:
                failures.append(f"$ {command}\nstatus {result.returncode}: {result.stderr}")
            elif shown and not any(command.startswith(name) for name in MACHINE):
                if result.stdout.rstrip("\n") != shown.rstrip("\n"):
                    failures.append(f"$ {command}\nshown:\n{shown}\nprinted:\n{result.stdout}")
    for block in blocks(text, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["bolmo"]:
                continue
            run += 1
            options = subprocess.run([bolmo, words[1], "--help"], capture_output=True, text=True).stdout
            missing = [word for word in words if word.startswith("--") and word not in options]
            failures += [f"$ {line}\nbolmo {words[1]} has no option {word}" for word in missing]
    everything = "\n".join(command for command, _ in commands(text))
    failures += [f"NOT_RUN has {pattern!r}, but README.md has not" for pattern in NOT_RUN if pattern not in everything]
    for failure in failures:
        print(f"test-readme: {failure}", file=sys.stderr)
    print(f"test-readme: {run} commands ran, {len(failures)} differ from README.md")
    sys.exit(1 if failures or run < 5 else 0)


if __name__ == "__main__":
    main()
