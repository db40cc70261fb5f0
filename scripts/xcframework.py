#!/usr/bin/env python3
"""Assembles, checks and packs the XCFramework of libbolmo, on any system.

    scripts/xcframework.py headers FOLDER [LIBRARY…]       bolmo.h and the module map of the module CBolmo; LIBRARY is
                                                           what a program links besides, such as framework:Metal or objc
    scripts/xcframework.py assemble OUT HEADERS SLICE=LIBRARY…
                                                           writes OUT, as `xcodebuild -create-xcframework` does
    scripts/xcframework.py check OUT SLICE…                fails unless OUT has these slices, complete
    scripts/xcframework.py pack OUT ZIP                    packs OUT into ZIP, and prints the checksum for Package.swift

A SLICE is a system with its architectures, as in the folders' names: macos-arm64_x86_64, ios-arm64,
ios-arm64_x86_64-simulator. The same OUT always gives the same ZIP.
"""

import hashlib
import os
import plistlib
import shutil
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = "CBolmo"
SYSTEMS = ["macos", "ios"]
VARIANTS = ["simulator", "maccatalyst"]
ARCHITECTURES = ["arm64", "x86_64"]


def fail(message):
    sys.exit(f"xcframework: {message}")


def module_map(libraries):
    """A module of the header, which also links what the static library needs."""
    lines = [f"module {MODULE} {{", '    header "bolmo.h"', "    export *"]
    for library in libraries:
        kind, _, name = library.rpartition(":")
        lines.append(f'    link framework "{name}"' if kind == "framework" else f'    link "{name}"')
    return "\n".join([*lines, "}", ""])


def headers(folder, *libraries):
    # A folder of the module's name: Xcode puts the headers of all libraries of an app into one folder.
    folder = Path(folder) / MODULE
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "ffi/include/bolmo.h", folder / "bolmo.h")
    (folder / "module.modulemap").write_text(module_map(libraries))


def entry(name, library):
    """What Info.plist says about the slice `name`."""
    system, architectures, *variant = name.split("-")
    architectures = architectures.replace("x86_64", "x86.64").split("_")
    architectures = [architecture.replace("x86.64", "x86_64") for architecture in architectures]
    if system not in SYSTEMS or not set(architectures) <= set(ARCHITECTURES) or not set(variant) <= set(VARIANTS):
        fail(f"{name} is no slice; expected is one such as macos-arm64_x86_64 or ios-arm64-simulator")
    keys = {
        "BinaryPath": library,
        "HeadersPath": "Headers",
        "LibraryIdentifier": name,
        "LibraryPath": library,
        "SupportedArchitectures": architectures,
        "SupportedPlatform": system,
    }
    return keys | ({"SupportedPlatformVariant": variant[0]} if variant else {})


def assemble(out, headers_folder, *slices):
    if not slices:
        fail("an XCFramework needs a library: name one, such as ios-arm64=libbolmo.a")
    out = Path(out)
    if out.exists():
        shutil.rmtree(out)
    entries = []
    for pair in slices:
        name, _, library = pair.partition("=")
        library = Path(library)
        if not library.is_file():
            fail(f"{library} is not a file; expected is the static library of {name}")
        entries.append(entry(name, library.name))
        (out / name).mkdir(parents=True)
        shutil.copyfile(library, out / name / library.name)
        shutil.copytree(headers_folder, out / name / "Headers")
    contents = {
        "AvailableLibraries": sorted(entries, key=lambda keys: keys["LibraryIdentifier"]),
        "CFBundlePackageType": "XFWK",
        "XCFrameworkFormatVersion": "1.0",
    }
    with open(out / "Info.plist", "wb") as file:
        plistlib.dump(contents, file)


def check(out, *slices):
    out = Path(out)
    with open(out / "Info.plist", "rb") as file:
        contents = plistlib.load(file)
    if contents["CFBundlePackageType"] != "XFWK" or contents["XCFrameworkFormatVersion"] != "1.0":
        fail(f"{out}/Info.plist is not that of an XCFramework of version 1.0")
    found = {keys["LibraryIdentifier"]: keys for keys in contents["AvailableLibraries"]}
    if sorted(found) != sorted(slices):
        fail(f"{out} has the slices {', '.join(sorted(found))}; expected are {', '.join(sorted(slices))}")
    declared = (ROOT / "ffi/include/bolmo.h").read_bytes()
    for name, keys in found.items():
        # `BinaryPath` is new in Xcode 15, and the order of architectures is free.
        wanted = entry(name, "libbolmo.a")
        keys.setdefault("BinaryPath", keys["LibraryPath"])
        for one in (wanted, keys):
            one["SupportedArchitectures"] = sorted(one["SupportedArchitectures"])
        if keys != wanted:
            fail(f"Info.plist says {keys} of {name}; expected is {wanted}")
        library = out / name / "libbolmo.a"
        with open(library, "rb") as file:
            magic = file.read(8)
        # An archive, or a file with archives for several architectures.
        if magic != b"!<arch>\n" and magic[:4] not in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
            fail(f"{library} is not a static library: it begins with {magic!r}")
        include = out / name / "Headers" / MODULE
        if (include / "bolmo.h").read_bytes() != declared:
            fail(f"{include}/bolmo.h is not ffi/include/bolmo.h: make the XCFramework again")
        text = (include / "module.modulemap").read_text()
        if not text.startswith(f"module {MODULE} {{") or 'header "bolmo.h"' not in text:
            fail(f"{include}/module.modulemap does not declare the module {MODULE}")
    names = {"Info.plist", "_CodeSignature", *found}
    odd = sorted(path.name for path in out.iterdir() if path.name not in names)
    if odd:
        fail(f"{out} has files that belong to no slice: {', '.join(odd)}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"xcframework: {out.name} is complete: {', '.join(sorted(found))}; {size} bytes")


def pack(out, name):
    out = Path(out)
    temporary = Path(f"{name}.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            # With one date and one mode, so that equal contents give equal archives.
            item = zipfile.ZipInfo(f"{out.name}/{path.relative_to(out)}", (1980, 1, 1, 0, 0, 0))
            item.external_attr = 0o100644 << 16
            item.compress_type = zipfile.ZIP_DEFLATED
            with open(path, "rb") as file, archive.open(item, "w") as packed:
                shutil.copyfileobj(file, packed, 1 << 20)
    os.replace(temporary, name)
    checksum = hashlib.sha256()
    with open(name, "rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    print(f"{checksum.hexdigest()}  {name}")


COMMANDS = {"headers": headers, "assemble": assemble, "check": check, "pack": pack}


def main():
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 2 else None
    if not command:
        sys.exit(__doc__)
    try:
        command(*sys.argv[2:])
    except (OSError, KeyError, plistlib.InvalidFileException) as error:
        fail(f"{sys.argv[1]}: {error}")
    except TypeError:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
