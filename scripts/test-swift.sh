#!/bin/bash
# Tests the Swift package with an installed libbolmo: scripts/test-swift.sh PREFIX [PART…]
# PREFIX is where `make test` or `make test-package` has installed the library and the command. Swift is that of
# target/swift, which `scripts/setup.sh swift` makes. All parts run unless some are named:
#
#   tests         the package's tests on the CPU device, and those that depend on the device on a software driver, if
#                 there is one
#   threads       those with several threads on the CPU device, under ThreadSanitizer, which sees the Swift side
#   programs      the package as others use it: the first program of bindings/swift/README.md in a new package, that
#                 document's code for apps, with stand-ins for Apple's libraries, and examples/swift
#   xcframework   the assembly of the XCFramework, with this machine's library in the place of Apple's
#   ios           whether the library compiles for iOS; left out where Rust's standard library for it cannot be had
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
prefix=$(realpath "$1")
shift
work=$target/swift-tests
model=$root/examples/demo-model
readme=bindings/swift/README.md
export LC_ALL=C
mkdir -p "$work"

fail() { echo "test-swift: $*" >&2; exit 1; }
# step NAME COMMAND…: prints one line, and the command's output if it failed. A command, not a function, so that the
# first failure in it counts.
step() {
    local name=$1 begin=$SECONDS
    shift
    "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "$name failed after $((SECONDS - begin)) s"; }
    echo "-- $name: $((SECONDS - begin)) s"
}
swift() { step "$1" scripts/swift.sh "$prefix" swift "${@:2}"; }
# build NAME PACKAGE OPTION…: builds a package; a warning in what this repository has is a failure, too
build() {
    # Without that option, SwiftPM may build the package that was last built in this scratch folder instead.
    swift "building $1" build --disable-build-manifest-caching --package-path "${@:2}"
    ! grep -aE '^/[^ ]*\.swift:[0-9]+:[0-9]+: warning:' "$work/log" || fail "$1 has warnings"
}
# status EXPECTED COMMAND…: fails if the command ends with another status; its messages go to $work/errors
status() {
    local expected=$1 found=0
    shift
    "$@" 2>"$work/errors" || found=$?
    [ "$found" = "$expected" ] || fail "$* ended with $found, not $expected: $(cat "$work/errors")"
}
with_swift() { scripts/swift.sh "$prefix" "$@"; }

# package_tests NAME SCRATCH OPTION…: runs what is built, on the adapter that BOLMO_ADAPTER names
package_tests() {
    swift "$1" test --skip-build --disable-swift-testing --scratch-path "${@:2}"
    grep -aE 'Executed [0-9]+ tests' "$work/log" | tail -n 1
}

tests() {
    build "the package and its tests" . --build-tests --scratch-path "$work/build"
    # A text to compare with that of the command.
    "$prefix/bin/bolmo" generate "This is a story about Mia," --model "$model" --adapter cpu --max-bytes 120 --json \
        >"$work/expected.json" 2>"$work/log" || fail "the command failed: $(cat "$work/log")"
    export BOLMO_EXPECTED=$work/expected.json
    BOLMO_ADAPTER=cpu package_tests "tests on the CPU device" "$work/build"
    if with_swift "$prefix/bin/bolmo" devices --adapter software --json 2>/dev/null | grep -q '"kind":"software"'; then
        # The others concern the host, which is the same.
        BOLMO_ADAPTER=software package_tests "tests on a software driver" "$work/build" \
            --filter 'GoldenTests|CancelTests|SuspendTests'
    else
        echo "-- there is no software driver: no tests on shaders"
    fi
}

threads() {
    echo 'print("")' >"$work/empty.swift"
    if ! with_swift swiftc -sanitize=thread "$work/empty.swift" -o "$work/empty" >"$work/log" 2>&1; then
        echo "-- Swift has no ThreadSanitizer here: no tests under it"
        return
    fi
    build "the tests for ThreadSanitizer" . --build-tests --sanitize=thread --scratch-path "$work/tsan"
    # The library isn't built for the sanitizer, which would not understand how its threads wait for each other. (With
    # ignore_noninstrumented_modules the sanitizer would see nothing that libdispatch calls, which is nearly all.)
    TSAN_OPTIONS="suppressions=$root/ffi/package/tsan.supp halt_on_error=1 exitcode=66" \
        BOLMO_SLOW_FACTOR=20 BOLMO_ADAPTER=cpu \
        package_tests "tests under ThreadSanitizer" "$work/tsan" --sanitize=thread \
        --filter 'ThreadTests|CancelTests|CloseTests|BatchTests|HandoffTests|ScoreTests|SuspendTests'
}

programs() {
    # Packages that depend on ../bolmo, as those of readers do, and share what is built for all of them.
    rm -rf "$work"/{bolmo,Story,App,generate,blocks}
    ln -s "$root" "$work/bolmo"
    mkdir -p "$work/blocks" "$work/Story/Sources/Story"
    # Each Swift block of README.md in a file of its own, by its number.
    awk -v folder="$work/blocks" '/^```swift$/ { file = sprintf("%s/%02d.swift", folder, ++n); next }
        /^```$/ { if (file) close(file); file = "" } file { print > file }' $readme
    [ "$(head -n 1 "$work/blocks/02.swift")" = "// swift-tools-version: 6.0" ] ||
        fail "$readme doesn't begin with a program and its Package.swift"
    [ "$(grep -c . "$work/blocks/01.swift")" -le 10 ] || fail "the first program of $readme has more than ten lines"
    mv "$work/blocks/01.swift" "$work/Story/Sources/Story/main.swift"
    mv "$work/blocks/02.swift" "$work/Story/Package.swift"
    build "$readme's first program" "$work/Story" --scratch-path "$work/programs"
    status 0 with_swift "$work/programs/debug/Story" "$model" >"$work/story"
    [ "$(wc -c <"$work/story")" -gt 20 ] || fail "$readme's first program wrote no text: $(cat "$work/story")"
    # The one of the other README.md, in a folder beside ../bolmo.
    awk '/^```swift$/ { inside = 1; next } /^```$/ { inside = 0 } inside' README.md \
        >"$work/Story/Sources/Story/main.swift"
    build "the program in README.md" "$work/Story" --scratch-path "$work/programs"
    (cd "$work/Story" && "$root/scripts/swift.sh" "$prefix" "$work/programs/debug/Story") >"$work/story"
    "$prefix/bin/bolmo" generate "Once upon a time" --max-bytes 200 >"$work/expected"
    cmp "$work/expected" "$work/story" || fail "the program in README.md doesn't write what the bolmo command does"

    cp -r bindings/swift/Tests/App "$work/App"
    for block in "$work"/blocks/*.swift; do cp "$block" "$work/App/Sources/App/Readme$(basename "$block")"; done
    build "$readme's code for apps" "$work/App" --scratch-path "$work/programs"
    step "$readme's code for apps" scripts/swift.sh "$prefix" "$work/programs/debug/App" "$model"

    # A copy, because SwiftPM takes two packages in folders of one name for the same, and a clone may be in a folder
    # named "swift".
    cp -r examples/swift "$work/generate"
    sed -i 's|(name: "Bolmo", path: "../..")|(path: "../bolmo")|; s/package: "Bolmo"/package: "bolmo"/' \
        "$work/generate/Package.swift"
    build "examples/swift" "$work/generate" --scratch-path "$work/programs"
    example "$work/programs/debug/generate"
    local sizes=(examples/swift "$work/programs/debug/generate" "the first program" "$work/programs/debug/Story"
        libbolmo.so "$prefix/lib/libbolmo.so") i
    for ((i = 0; i < ${#sizes[@]}; i += 2)); do
        echo "-- bytes of ${sizes[i]}: $(wc -c <"${sizes[i + 1]}")"
    done
}

# example PROGRAM: examples/swift writes what the command does, and its statuses are those that its README has
example() {
    local program=$1 text="The next day" options
    for options in "--max-bytes 40" "--max-bytes 60 --temperature 0.8 --seed 7"; do
        read -ra options <<<"$options"
        "$prefix/bin/bolmo" generate "$text" --adapter cpu "${options[@]}" >"$work/expected"
        status 0 with_swift "$program" --model "$model" "$text" --adapter cpu "${options[@]}" >"$work/found"
        cmp "$work/expected" "$work/found" || fail "examples/swift doesn't write what the bolmo command does"
    done
    status 1 with_swift "$program" --model "$work" x
    grep -q '^error: .*config.json' "$work/errors" || fail "no config.json, and the message is: $(cat "$work/errors")"
    status 2 with_swift "$program" --max-bytes
    status 2 with_swift "$program" --model "$model" --max-bytes ten x
    # Ctrl-C in the middle of a text that would be long.
    local endless=$root/tests/golden/infer/models/nano_trained
    "$prefix/bin/bolmo" generate x --model "$endless" --adapter cpu --max-bytes 20000 >"$work/expected"
    python3 - "$work/expected" scripts/swift.sh "$prefix" "$program" --model "$endless" x --adapter cpu \
        --max-bytes 20000 <<'END'
import signal, subprocess, sys, time

program = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
text = program.stdout.read(20)
program.send_signal(signal.SIGINT)
begin = time.monotonic()
text += program.stdout.read()
status = program.wait(timeout=60)
seconds = time.monotonic() - begin
with open(sys.argv[1], "rb") as file:
    expected = file.read()
assert status == 130, f"Ctrl-C gives status {status}, not 130"
assert seconds < 5, f"the program ended {seconds:.1f} s after Ctrl-C"
assert len(text) < len(expected), "the program ended by itself"
assert expected.startswith(text), f"before Ctrl-C the program wrote {text!r}"
print(f"-- Ctrl-C: {len(text)} bytes are kept, the program ended after {1000 * seconds:.0f} ms")
END
}

xcframework() {
    local framework=$work/CBolmo.xcframework slice=ios-arm64 needs
    rm -rf "$work/headers" "$framework"
    scripts/xcframework.py headers "$work/headers"
    scripts/xcframework.py assemble "$framework" "$work/headers" "$slice=$prefix/lib/libbolmo.a"
    scripts/xcframework.py check "$framework" "$slice"
    status 1 scripts/xcframework.py check "$framework" "$slice" macos-arm64_x86_64
    scripts/xcframework.py pack "$framework" "$framework.zip" >"$work/checksum"
    python3 -m zipfile -t "$framework.zip" >"$work/log"
    [ "$(cut -d' ' -f1 "$work/checksum")" = "$(with_swift swift package compute-checksum "$framework.zip")" ] ||
        fail "the checksum of $framework.zip is not the one that Swift computes"
    # What lies in it is a module that Swift imports, and a library that a program links.
    printf '%s\n' 'import CBolmo' 'print("bolmo", String(cString: bolmo_version()))' >"$work/link.swift"
    read -ra needs <<<"$(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --static --libs-only-l bolmo |
        sed 's/-lbolmo[^ ]*//g')"
    # The library is the linker's alone: older Swifts would look for options in it, and fail at the bitcode of newer
    # LLVMs.
    step "linking with the XCFramework" scripts/swift.sh "$prefix" swiftc "$work/link.swift" -o "$work/link" \
        -I "$framework/$slice/Headers" -Xlinker "$framework/$slice/libbolmo.a" "${needs[@]}"
    [ "$(with_swift "$work/link")" = "$("$prefix/bin/bolmo" --version)" ] || fail "another version is linked"
    # Frameworks that a program has to link are in the module map.
    scripts/xcframework.py headers "$work/headers" framework:Metal objc
    [ "$(grep -cE '^    link (framework "Metal"|"objc")$' "$work/headers/CBolmo/module.modulemap")" = 2 ] ||
        fail "the module map doesn't link what it should: $(cat "$work/headers/CBolmo/module.modulemap")"
    rm -rf "$framework"
}

ios() {
    # 3: the standard library for the target cannot be had, which is no failure.
    local found=0
    scripts/xcframework.sh check || found=$?
    [ "$found" = 3 ] || [ "$found" = 0 ] || fail "libbolmo doesn't compile for iOS"
}

[ "$#" != 0 ] || set -- tests threads programs xcframework ios
for part; do
    case "$part" in tests | threads | programs | xcframework | ios) "$part" ;;
    *) fail "there is no part $part: see the beginning of this script" ;;
    esac
done
