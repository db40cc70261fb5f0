#!/usr/bin/env python3
"""Draws a run of `bolmo generate` on a terminal as an SVG file: what the command prints, in the colors it prints.

    scripts/picture.py OUT.svg BOLMO PROMPT [OPTION...]

`make picture` draws docs/demo.svg with it.
"""

import fcntl
import html
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios

COLUMNS = 92  # where the terminal breaks lines
SIZE, CELL, LINE, MARGIN, BAR = 14, 8.43, 21, 22, 36  # font, character, line, frame and title bar, in pixels

STYLE = """
    .frame { fill: #ffffff; stroke: #d0d7de }
    .bar { fill: #f6f8fa; stroke: #d0d7de }
    .dot { fill: #d0d7de }
    text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
    text { fill: #1f2328 }
    .dim { fill: #818b98 } .command { fill: #1a7f37 } .cyan { fill: #0969a2 } .yellow { fill: #9a6700 }
    @media (prefers-color-scheme: dark) {
      .frame { fill: #0d1117; stroke: #3d444d }
      .bar { fill: #151b23; stroke: #3d444d }
      .dot { fill: #3d444d }
      text { fill: #f0f6fc }
      .dim { fill: #7d8590 } .command { fill: #3fb950 } .cyan { fill: #56d4dd } .yellow { fill: #e3b341 }
    }
"""
COLORS = {"": None, "0": None, "2": "dim", "33": "yellow", "36": "cyan"}  # by their numbers in escape sequences


def run(bolmo, prompt, options):
    """What the command prints to a terminal on standard output and standard error."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment["TERM"] = "xterm-256color"
    command = [bolmo, "generate", prompt, *options]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    printed = b""
    while True:
        try:
            part = os.read(screen, 4096)
        except OSError:  # Linux reports the end of a terminal as an error
            part = b""
        if not part:
            break
        printed += part
    if process.wait() != 0:
        sys.exit(f"picture: {shlex.join(command)} failed: {printed.decode(errors='replace')}")
    return printed.decode().replace("\r\n", "\n")


def draw(prompt, options, printed):
    lines = []
    x = y = 0  # in characters

    def newline():
        nonlocal x, y
        x, y = 0, y + 1

    def put(text, kind=None):
        nonlocal x
        for character in text:
            if character == "\n":
                newline()
                continue
            if x == COLUMNS:
                newline()
            if lines and lines[-1][1:] == [y, kind] and lines[-1][0][0] + len(lines[-1][0][1]) == x:
                lines[-1][0][1] += character
            else:
                lines.append([[x, character], y, kind])
            x += 1

    put("$ ", "dim")
    put(shlex.join(["bolmo", "generate", prompt]) + " \\\n", "command")
    put("    " + shlex.join(options) + "\n\n", "command")
    # Text and the numbers of escape sequences take turns.
    for i, part in enumerate(re.split(r"\x1b\[([0-9;]*)m", printed)):
        if i % 2 == 1:
            kind = COLORS[part]
        elif re.search(r"[^\n -~\u00a0-\uffff]", part):
            sys.exit(f"picture: an unknown control character in {part!r}")
        else:
            put(part, kind if i else None)

    at = lambda column: f"{MARGIN + column * CELL:.1f}"
    w, h = round(2 * MARGIN + COLUMNS * CELL), BAR + y * LINE + MARGIN - 8
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
        f'aria-label="bolmo generate: the demo model continues {html.escape(prompt)} in a terminal, patches colored">',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="frame" x="0.5" y="0.5" width="{w - 1}" height="{h - 1}" rx="8"/>',
        f'  <path class="bar" d="M0.5 {BAR - 8.5} V8.5 a8 8 0 0 1 8 -8 H{w - 8.5} a8 8 0 0 1 8 8 V{BAR - 8.5} Z"/>',
        *(f'  <circle class="dot" cx="{18 + 18 * i}" cy="14" r="5"/>' for i in range(3)),
    ]
    for (column, text), row, kind in lines:
        # textLength keeps text and patches together, whatever monospaced font the reader has.
        attributes = f' class="{kind}"' if kind else ""
        out.append(
            f'  <text{attributes} x="{at(column)}" y="{BAR + row * LINE + SIZE}" textLength="{len(text) * CELL:.1f}" '
            f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{html.escape(text)}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    path, bolmo, prompt, *options = sys.argv[1:]
    picture = draw(prompt, options, run(bolmo, prompt, options))
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)


main()
