#!/usr/bin/env python3
"""Runs the integration tests on the devices that tests/suites.toml names for each of them.

    scripts/test-suites.py BOLMO [DEVICE…] [--only SUITE,…]

BOLMO is the built command, which lists adapters. Without devices, all of them are tested. With --only, the other suites
and programs are left out. CARGO names cargo. Before anything runs, every test must be in a suite, and every suite must
have a test.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = os.environ.get("CARGO", "cargo")
PROGRAM = "device"


def fail(message: str) -> None:
    sys.exit(f"test-suites: {message}")


def shader_adapter(bolmo: str) -> str:
    """The choice of an adapter that runs the shaders."""
    listed = subprocess.run([bolmo, "devices", "--json"], check=True, capture_output=True, text=True)
    adapters = [a for a in json.loads(listed.stdout)["adapters"] if a["usable"] and a["kind"] != "cpu"]
    if not adapters:
        fail("there is no adapter for the shaders; run scripts/setup.sh shaders BOLMO")
    return "auto" if any(not adapter["software"] for adapter in adapters) else "software"


def instructions(bolmo: str, wanted: str = "") -> str:
    """The instruction set of the CPU device if `wanted` is asked for: the best one if this CPU lacks it."""
    env = os.environ | {"BOLMO_INSTRUCTIONS": wanted}
    listed = subprocess.run([bolmo, "devices", "--json"], check=True, capture_output=True, text=True, env=env)
    return json.loads(listed.stdout)["adapters"][-1]["driver"].split()[-1]


def avx2(bolmo: str) -> dict[str, str] | None:
    """The environment for AVX2, where it is not the best instruction set."""
    if instructions(bolmo) == "avx2" or instructions(bolmo, "avx2") != "avx2":
        return None
    return {"BOLMO_ADAPTER": "cpu", "BOLMO_INSTRUCTIONS": "avx2"}


def test_names(program: str) -> list[str]:
    """The tests of a program."""
    command = [CARGO, "test", "--quiet", "--test", program, "--", "--list", "--format", "terse"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")]


def belongs(test: str, suite: str) -> bool:
    return test == suite or test.startswith(suite + "::")


def check(suites: dict[str, list[str]]) -> None:
    """Fails unless suites and tests match."""
    tests = test_names(PROGRAM)
    stray = [test for test in tests if not any(belongs(test, suite) for suite in suites)]
    if stray:
        fail(f"tests/suites.toml: no suite has these tests: {', '.join(stray)}")
    empty = [suite for suite in suites if not any(belongs(test, suite) for test in tests)]
    if empty:
        fail(f"tests/suites.toml: no test is in these suites: {', '.join(empty)}")


def only(table: dict[str, dict[str, list[str]]], names: list[str]) -> dict[str, dict[str, list[str]]]:
    """The part of the table with these suites and programs."""
    every = [name for part in table.values() for name in part]
    if unknown := [name for name in names if not any(belongs(one, name) for one in every)]:
        fail(f"tests/suites.toml has no {', '.join(unknown)}")
    chosen = lambda suite: any(belongs(suite, name) for name in names)
    return {kind: {suite: to for suite, to in part.items() if chosen(suite)} for kind, part in table.items()}


def run(device: str, environment: dict[str, str], table: dict[str, dict[str, list[str]]]) -> None:
    """Runs everything that the table names for a device."""
    env = os.environ | environment
    suites = [suite for suite, devices in table["device"].items() if device in devices]
    commands = []
    if suites:
        filters = [suite if suite.count("::") else f"{suite}::" for suite in suites]
        commands.append([CARGO, "test", "--test", PROGRAM, "--", *filters])
    programs = [name for name, devices in table["programs"].items() if device in devices]
    if programs:
        commands.append([CARGO, "test", *[word for name in programs for word in ("--test", name)]])
    for command in commands:
        begun = time.monotonic()
        # Programs start processes side by side, whose threads would wait for each other's cores.
        alone = {"BOLMO_THREADS": "1"} if programs and command is commands[-1] else {}
        if subprocess.run(command, cwd=ROOT, env=alone | env, check=False).returncode != 0:
            fail(f"failed on {device}: {' '.join(command)}")
        print(f"== tests on {device}: {time.monotonic() - begun:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bolmo", metavar="BOLMO")
    parser.add_argument("devices", metavar="DEVICE", nargs="*")
    parser.add_argument("--only", metavar="SUITE,…", type=lambda names: names.split(","))
    args = parser.parse_intermixed_args()
    wanted = args.devices
    table = tomllib.loads((ROOT / "tests/suites.toml").read_text())
    adapter = os.environ.get("BOLMO_ADAPTER", "")
    devices = {
        "shaders": lambda: {"BOLMO_ADAPTER": adapter if adapter not in ("", "cpu") else shader_adapter(args.bolmo)},
        "cpu": lambda: {"BOLMO_ADAPTER": "cpu"},
        "avx2": lambda: avx2(args.bolmo),
        "portable": lambda: {"BOLMO_ADAPTER": "cpu", "BOLMO_INSTRUCTIONS": "portable"},
    }
    named = {device for part in table.values() for listed in part.values() for device in listed}
    if unknown := (named | set(wanted)) - devices.keys():
        fail(f"unknown devices {', '.join(sorted(unknown))}; known: {', '.join(devices)}")
    check(table["device"])
    if args.only:
        table = only(table, args.only)
    for device in wanted or devices:
        environment = devices[device]()
        if environment is not None:
            run(device, environment, table)


if __name__ == "__main__":
    main()
