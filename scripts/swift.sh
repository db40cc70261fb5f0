#!/bin/bash
# Runs a command with Swift and an installed libbolmo: scripts/swift.sh PREFIX COMMAND ARGUMENT…
# PREFIX is where `make install-lib` has put the library, COMMAND is `swift` or what it has built. Swift is that of
# target/swift, which `scripts/setup.sh swift` makes.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
prefix=$(realpath "$1")
shift
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
# What a command in another root sees of this one.
export SWIFT_FOLDERS=$root:$target:$prefix
exec "$target/swift/run" "$@"
