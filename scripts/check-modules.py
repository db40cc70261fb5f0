#!/usr/bin/env python3
"""Find circles between modules, and imports from a lower room to a higher one.

usage: scripts/check-modules.py [--json] [FOLDER...]

A module is a file. A room is a folder or a file directly below the root of a crate's sources. FOLDER is a crate's
folder; the default is all crates of the workspace and bindings/web/src. scripts/rooms.toml has the order of rooms.

An import is a path in the source: `use crate::a::B`, `super::b()`, `child::C`. It leads to the file that defines
the item, through re-exports. Two things are no imports: a folder's own file (mod.rs) that re-exports items of the
folder, and a file of the folder that uses what mod.rs defines. Code under `#[cfg(test)]` is ignored. Exits with 1
if a problem was found.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Comments, strings, characters. Raw strings come first, and a lifetime is not the beginning of a character.
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|\bb?r(#*)".*?"\1|"(?:\\.|[^"\\])*"|\'(?:\\[^\n]{1,9}?|[^\\\'\n])\'', re.S)
TEST = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*")
USE = re.compile(r"(?<![\w.])(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
MODULE = re.compile(r"(?<!\w)mod\s+(\w+)\s*;")
PATH = re.compile(r"(?<![\w$:.])\w+(?:::\w+)+")

DEFINITION = r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)"


def blank(match):
    """Spaces in place of a match, so that lines keep their numbers."""
    return re.sub(r"[^\n]", " ", match.group())


def without_tests(text):
    """The source without items under `#[cfg(test)]`."""
    while match := TEST.search(text):
        end, depth = match.end(), 0
        # An item ends at its semicolon or at the brace that closes it.
        while end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if depth == 0 and text[end - 1] in ";}":
                break
        text = text[: match.start()] + re.sub(r"[^\n]", " ", text[match.start() : end]) + text[end:]
    return text


def use_paths(tree, prefix=()):
    """(path, name that it gets) for each leaf of a use tree; the name is `*` for a glob."""
    tree = tree.strip()
    if brace := re.match(r"((?:\w+\s*::\s*)*)\{(.*)\}$", tree, re.S):
        prefix += tuple(re.findall(r"\w+", brace.group(1)))
        depth, begin, body = 0, 0, brace.group(2) + ","
        for at, char in enumerate(body):
            depth += {"{": 1, "}": -1}.get(char, 0)
            if char == "," and depth == 0:
                if body[begin:at].strip():
                    yield from use_paths(body[begin:at], prefix)
                begin = at + 1
        return
    path, _, alias = tree.partition(" as ")
    names = prefix + tuple(part.strip() for part in path.split("::") if part.strip())
    names = names[:-1] if len(names) > 1 and names[-1] == "self" else names
    yield names, alias.strip() or names[-1]


class Crate:
    """The modules of a crate, by their paths from its root: () is the root, ("device", "wgpu") is device/wgpu."""

    def __init__(self, root_file):
        self.root, self.modules = root_file.parent, {}
        self.read((), root_file, root_file.parent)

    def read(self, module, file, folder):
        text = without_tests(NOISE.sub(blank, file.read_text()))
        uses = [(match.start(), bool(match.group(1)), list(use_paths(match.group(2)))) for match in USE.finditer(text)]
        rest = USE.sub(blank, text)
        names = {alias: path for _, _, paths in uses for path, alias in paths if alias != "*"}
        globs = [path[:-1] for _, _, paths in uses for path, alias in paths if alias == "*"]
        self.modules[module] = {"file": file, "text": text, "rest": rest, "uses": uses, "names": names, "globs": globs}
        for name in MODULE.findall(rest):
            for candidate in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if candidate.exists():
                    self.read((*module, name), candidate, folder / name)

    def find(self, module, path, depth=0):
        """The module that defines what `path` names in `module`, or None if that is in another crate."""
        path = list(path)
        if path[0] == "crate":
            at, path = (), path[1:]
        elif path[0] in ("self", "super"):
            at = module
            while path and path[0] in ("self", "super"):
                at = at[:-1] if path.pop(0) == "super" else at
        elif (*module, path[0]) in self.modules:
            at = module
        else:
            return None
        while path and (*at, path[0]) in self.modules:
            at = (*at, path.pop(0))
        if not path or path[0] == "*" or depth > 8:
            return at
        here = self.modules[at]
        if path[0] in here["names"]:
            return self.find(at, here["names"][path[0]], depth + 1) or at
        if not re.search(rf"{DEFINITION}\s+{path[0]}\b", here["text"]):
            for glob in here["globs"]:
                found = self.find(at, (*glob, path[0]), depth + 1)
                # Only a module that has the name: a glob may be of another crate, or of a type.
                if found and found != at and re.search(rf"\b{path[0]}\b", self.modules[found]["text"]):
                    return found
        return at

    def imports(self):
        """(file, file, line, path) for each import between two files."""
        for module, source in self.modules.items():
            paths = [(at, path, public) for at, public, paths in source["uses"] for path, _ in paths]
            paths += [(match.start(), match.group().split("::"), False) for match in PATH.finditer(source["rest"])]
            for at, path, public in paths:
                target = self.find(module, path)
                if target is None or target == module[: len(target)]:
                    continue
                if not public or target[: len(module)] != module:
                    line = source["text"].count("\n", 0, at) + 1
                    yield source["file"], self.modules[target]["file"], line, "::".join(path)


def script_imports(folder):
    """The same for TypeScript."""
    pattern = re.compile(r"""(?:\bimport\b|\bimport\s*\(|^\}|\bfrom)[^;"'`]*["'](\.[^"']*)["']""", re.M)
    for file in sorted(folder.rglob("*.ts")):
        text = file.read_text()
        for match in pattern.finditer(text):
            statement = text[: match.end()].rsplit(";", 1)[-1].lstrip()
            target = (file.parent / re.sub(r"\.js$", "", match.group(1))).resolve()
            target = next((t for t in (target.with_name(target.name + ".ts"), target / "index.ts") if t.exists()), None)
            if target and target != file and not re.match(r"(?:\s*//[^\n]*\n)*export\b[^=]*\bfrom\b", statement):
                yield file, target, text.count("\n", 0, match.start()) + 1, match.group(1)


def circles(edges):
    """Groups of nodes that reach each other."""
    reach = {node: {node} for edge in edges for node in edge}
    for _ in reach:
        for a, b in edges:
            reach[a] |= reach[b]
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in reach}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def check(folder, imports, root, order):
    """What is wrong in one crate, as a list of circles and imports against the order."""
    room = lambda file: file.relative_to(root).parts[0].split(".")[0]
    tops = {"lib", "main", "index"}
    found, files, rooms = [], {}, {}
    for source, target, line, path in imports:
        at = f"{source.relative_to(ROOT)}:{line}: {path}"
        files.setdefault((str(source.relative_to(root)), str(target.relative_to(root))), []).append(at)
        if room(source) != room(target) and not {room(source), room(target)} & tops:
            rooms.setdefault((room(source), room(target)), []).append(at)
    rank = {name: index for index, tier in enumerate(order) for name in tier}
    for kind, edges in (("files", files), ("rooms", rooms)):
        for circle in circles(set(edges)):
            ties = {f"{a} -> {b}": at for (a, b), at in sorted(edges.items()) if a in circle and b in circle}
            found.append({"crate": folder, "problem": f"circle of {kind}", "of": circle, "imports": ties})
    for (a, b), at in sorted(rooms.items()):
        if a in rank and b in rank and rank[a] < rank[b]:
            ties = {f"{a} -> {b}": at}
            found.append({"crate": folder, "problem": "import of a higher room", "of": [a, b], "imports": ties})
    return found, {"crate": folder, "imports_of_files": len(files), "imports_of_rooms": len(rooms)}


def main(arguments):
    as_json, folders = "--json" in arguments, [argument for argument in arguments if argument != "--json"]
    orders = tomllib.loads((ROOT / "scripts/rooms.toml").read_text())
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    found, counts = [], []
    for folder in folders or [*members, "bindings/web/src"]:
        roots = [ROOT / folder / path for path in ("src/lib.rs", "rust/lib.rs", "src/main.rs")]
        checks = [(Crate(root).imports(), root.parent) for root in roots if root.exists()]
        for imports, root in checks or [(script_imports(ROOT / folder), ROOT / folder)]:
            problems, count = check(folder, imports, root, orders.get(folder, {}).get("order", []))
            found += problems
            counts.append(count)
    if as_json:
        print(json.dumps({"problems": found, "crates": counts}, indent=2))
    else:
        for problem in found:
            print(f"{problem['crate']}: {problem['problem']}: {', '.join(problem['of'])}")
            for tie, places in problem["imports"].items():
                print(f"  {tie}\n" + "".join(f"    {place}\n" for place in places), end="")
        print(f"{len(found)} problems in {len(counts)} crates", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
