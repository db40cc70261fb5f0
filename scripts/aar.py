#!/usr/bin/env python3
"""Puts the AAR for Android together, or checks one.

    scripts/aar.py make AAR JAR ABI=LIBRARY...    from the jar of the Kotlin package and a native library for each ABI
    scripts/aar.py check [--any-machine] AAR ABI...
                                                  fails unless the AAR has what it should; the libraries may be for
                                                  another machine, in tests
    scripts/aar.py libraries LIBRARY...           fails unless these shared libraries are as they should be

The files that are not made are in bindings/kotlin/android. A build of the same inputs has the same bytes.
"""
import io
import pathlib
import re
import struct
import sys
import xml.etree.ElementTree as ElementTree
import zipfile

root = pathlib.Path(__file__).resolve().parent.parent
package = root / "bindings" / "kotlin"
page = 0x4000
# The first API level of the libraries; scripts/android.sh links for it.
metadata = "aarFormatVersion=1.0\naarMetadataVersion=1.0\nminCompileSdk=26\nminAndroidGradlePluginVersion=1.0.0\n"
# Machines in an ELF header.
machines = {"arm64-v8a": 183, "x86_64": 62}
# Entries of the jar that the AAR's classes do without: its native libraries, and what is beside the classes there.
left_out = re.compile(r"META-INF/(native|maven|proguard)/|META-INF/MANIFEST\.MF$|META-INF/LICENSE$")


def fail(message):
    sys.exit(f"aar: {message}")


def write(archive, name, data):
    entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data, compresslevel=9)


def make(aar, jar, libraries):
    classes = io.BytesIO()
    with zipfile.ZipFile(jar) as source, zipfile.ZipFile(classes, "w") as target:
        for name in sorted(source.namelist()):
            if not name.endswith("/") and not left_out.match(name):
                write(target, name, source.read(name))
        rules = source.read("META-INF/proguard/bolmo.pro")
    pathlib.Path(aar).parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(aar, "w") as archive:
        write(archive, "AndroidManifest.xml", (package / "android" / "AndroidManifest.xml").read_bytes())
        write(archive, "classes.jar", classes.getvalue())
        for abi, library in libraries:
            write(archive, f"jni/{abi}/libbolmo_jni.so", pathlib.Path(library).read_bytes())
        write(archive, "proguard.txt", rules)
        # No resources.
        write(archive, "R.txt", b"")
        write(archive, "META-INF/com/android/build/gradle/aar-metadata.properties", metadata)
        write(archive, "META-INF/LICENSE", (root / "LICENSE").read_bytes())


def string(table, offset):
    return table[offset : table.index(b"\0", offset)].decode()


def check_library(name, data, machine=None):
    """Whether a 64-bit ELF file has its name, aligned segments, and the exports of JNI alone. Returns its machine."""
    if data[:6] != b"\x7fELF\x02\x01":
        fail(f"{name} is no 64-bit little-endian ELF file")
    found = struct.unpack_from("<H", data, 18)[0]
    if machine is not None and found != machine:
        fail(f"{name} is for machine {found}, expected {machine}")
    segments, sections = struct.unpack_from("<QQ", data, 32)
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    for index in range(segment_count):
        place = segments + index * segment_size
        kind, _, offset, address, _, _, _, alignment = struct.unpack_from("<IIQQQQQQ", data, place)
        if kind == 1 and (alignment < page or alignment % page or (address - offset) % page):
            fail(f"{name}: a segment is aligned to {alignment:#x}, expected a multiple of {page:#x}: link it with "
                 "-Wl,-z,max-page-size=16384")
    places = range(sections, sections + section_count * section_size, section_size)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, place) for place in places]

    def content(header):
        return data[header[4] : header[4] + header[5]]

    exports, soname = set(), None
    for header in headers:
        if header[1] == 11:  # symbols for the dynamic loader
            names = content(headers[header[6]])
            for entry in struct.iter_unpack("<IBBHQQ", content(header)):
                # Defined here, global or weak, and visible.
                if entry[3] and entry[1] >> 4 in (1, 2) and entry[2] & 3 in (0, 3):
                    exports.add(string(names, entry[0]))
        if header[1] == 6:  # the dynamic section
            names = content(headers[header[6]])
            for tag, value in struct.iter_unpack("<qQ", content(header)):
                if tag == 14:
                    soname = string(names, value)
    expected = {"JNI_OnLoad", "Java_dev_bolmo_NativeLibrary_abiVersion", "Java_dev_bolmo_NativeLibrary_version"}
    if exports != expected:
        missing, unexpected = sorted(expected - exports), sorted(exports - expected)
        fail(f"{name}: missing exports {missing}, {len(unexpected)} unexpected exports {unexpected[:20]}")
    if soname != "libbolmo_jni.so":
        fail(f"{name}: its name for the loader is {soname}, expected libbolmo_jni.so")
    return found


def dependencies(pom):
    space = "{http://maven.apache.org/POM/4.0.0}"
    tree = ElementTree.parse(pom).getroot()
    properties = {item.tag.removeprefix(space): item.text for item in tree.iterfind(f"{space}properties/*")}

    def value(item, name):
        return re.sub(r"\$\{(.*?)\}", lambda match: properties[match[1]], item.findtext(space + name) or "")

    items = {
        tuple(value(item, name) for name in ("groupId", "artifactId", "version"))
        for item in tree.iterfind(f"{space}dependencies/{space}dependency")
        if value(item, "scope") != "test"
    }
    return tuple(value(tree, name) for name in ("groupId", "artifactId", "version", "packaging")), items


def check(aar, abis, any_machine):
    size = pathlib.Path(aar).stat().st_size
    android, needs = dependencies(package / "android" / "pom.xml")
    jvm, jvm_needs = dependencies(package / "pom.xml")
    if needs != jvm_needs or android[2] != jvm[2]:
        fail(f"android/pom.xml has version {android[2]} and {sorted(needs)}, pom.xml {jvm[2]} and {sorted(jvm_needs)}")
    if android != ("dev.bolmo", "bolmo-android", jvm[2], "aar"):
        fail(f"android/pom.xml is for {android}")
    with zipfile.ZipFile(aar) as archive:
        libraries = {f"jni/{abi}/libbolmo_jni.so" for abi in abis}
        expected = {
            "AndroidManifest.xml", "classes.jar", "proguard.txt", "R.txt", "META-INF/LICENSE",
            "META-INF/com/android/build/gradle/aar-metadata.properties",
        } | libraries
        found = set(archive.namelist())
        if found != expected:
            fail(f"missing are {sorted(expected - found)}, unexpected {sorted(found - expected)}")
        manifest = ElementTree.fromstring(archive.read("AndroidManifest.xml"))
        attribute = "{http://schemas.android.com/apk/res/android}minSdkVersion"
        if manifest.get("package") != "dev.bolmo" or manifest.find("uses-sdk").get(attribute) != "26":
            fail("AndroidManifest.xml: expected the package dev.bolmo and minSdkVersion 26")
        rules = (package / "src/main/resources/META-INF/proguard/bolmo.pro").read_bytes()
        if archive.read("proguard.txt") != rules:
            fail("proguard.txt is not META-INF/proguard/bolmo.pro of the jar")
        with zipfile.ZipFile(io.BytesIO(archive.read("classes.jar"))) as classes:
            names = classes.namelist()
            for name in ("dev/bolmo/Model.class", "dev/bolmo/Native.class", "META-INF/bolmo.kotlin_module"):
                if name not in names:
                    fail(f"classes.jar has no {name}")
            usual = re.compile(r"dev/bolmo/[\w$]+\.class$|META-INF/bolmo\.kotlin_module$")
            strange = [name for name in names if not usual.match(name)]
            if strange:
                fail(f"classes.jar has {strange}")
        for name in sorted(libraries):
            entry = archive.getinfo(name)
            if entry.compress_type == zipfile.ZIP_STORED:
                with open(aar, "rb") as file:
                    file.seek(entry.header_offset + 26)
                    start = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                if start % page:
                    fail(f"{name} is stored uncompressed at {start:#x}, expected a multiple of {page:#x}")
            abi = name.split("/")[1]
            machine = check_library(name, archive.read(name), None if any_machine else machines[abi])
            print(f"aar: {name} has {entry.file_size} bytes, {entry.compress_size} compressed (machine {machine})")
    print(f"aar: {aar} has {size} bytes")


arguments = [argument for argument in sys.argv[1:] if argument != "--any-machine"]
if len(arguments) >= 4 and arguments[0] == "make":
    make(arguments[1], arguments[2], [item.split("=", 1) for item in arguments[3:]])
elif len(arguments) >= 3 and arguments[0] == "check":
    check(arguments[1], arguments[2:], "--any-machine" in sys.argv)
elif len(arguments) >= 2 and arguments[0] == "libraries":
    for library in arguments[1:]:
        check_library(library, pathlib.Path(library).read_bytes())
else:
    sys.exit(__doc__)
