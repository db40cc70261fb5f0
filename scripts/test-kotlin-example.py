#!/usr/bin/env python3
"""Runs the built program of examples/kotlin: its text, options, errors, and Ctrl-C.

    scripts/test-kotlin-example.py JAVA JAR CACHE BOLMO MODEL
"""
import signal
import subprocess
import sys
import time

java, jar, cache, bolmo, model = sys.argv[1:]
program = [java, f"-Dbolmo.library.cache={cache}", "-jar", jar]
prompt = "This is a story about Mia,"


def run(command):
    return subprocess.run(command, capture_output=True, timeout=120)


def same(what, expected, found):
    if expected != found:
        sys.exit(f"{what}: expected {expected!r}, found {found!r}")


reference = [bolmo, "generate", prompt, "--model", model, "--adapter", "cpu"]
ours = [*program, "--model", model, "--adapter", "cpu"]
for options in (["--max-bytes", "60"], ["--max-bytes", "60", "--temperature", "0.8", "--seed", "7"]):
    expected, found = run(reference + options), run([*ours, *options, prompt])
    same(f"exit status with {options}", (0, 0), (expected.returncode, found.returncode))
    same(f"text with {options}", expected.stdout, found.stdout)

for options, status, text in (
    (["--max-bytes", "many", prompt], 2, b"--max-bytes"),
    (["--unknown", prompt], 2, b"--unknown"),
    ([], 2, b"PROMPT"),
    (["--model", "/nowhere", prompt], 1, b"/nowhere"),
    (["--adapter", "no such adapter", prompt], 1, b"no such adapter"),
):
    found = run([*ours, *options])
    same(f"exit status with {options}", status, found.returncode)
    if text not in found.stderr or b"\tat " in found.stderr or found.stdout:
        sys.exit(f"with {options}: expected one message with {text!r}, found {found.stderr!r} and {found.stdout!r}")

# Ctrl-C keeps what was written. The whole text is what the same options give undisturbed.
options = ["--max-bytes", "5000", "--temperature", "1", "--seed", "3"]
whole = run(reference + options).stdout
# A shell's background jobs ignore the signal, and so would their children.
process = subprocess.Popen([*ours, *options, prompt], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           bufsize=0, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
first = process.stdout.read(10)
process.send_signal(signal.SIGINT)
start = time.monotonic()
rest, errors = process.communicate(timeout=30)
seconds = time.monotonic() - start
same("exit status after Ctrl-C", 130, process.returncode)
if not whole.startswith((first + rest).rstrip(b"\n")) or len(first + rest) >= len(whole):
    sys.exit(f"after Ctrl-C: expected the beginning of {whole!r}, found {first + rest!r}")
if b"cancelled" not in errors or b"\tat " in errors:
    sys.exit(f"after Ctrl-C: expected a line that says so, found {errors!r}")
print(f"test-kotlin: Ctrl-C kept {len(first + rest)} of {len(whole)} bytes, and the program ended in {seconds:.2f} s")
