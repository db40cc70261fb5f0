#!/bin/bash
# Packages every crate that others may use, and checks that what the packages hold compiles: nothing outside of a
# crate's folder is needed. Nothing is published. The crates are packaged from a copy, in which they may be: cargo
# resolves a package's dependencies on crates of the same workspace only among those that may be published.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/test-crates
rm -rf "$work"
mkdir -p "$work/copy" "$work/unpacked"

git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -f "$file" ] || printf '%s\0' "$file"
done | xargs -0 cp --parents -t "$work/copy"
cd "$work/copy"
sed -i 's/^publish = false$/publish = true/' Cargo.toml
# Tests, benches and the library of the Kotlin package are of use in the repository alone. The command has the demo
# model, which lies beside its folder.
cargo package --quiet --workspace --exclude bolmo-tests --exclude bolmo-benches --exclude bolmo-cli \
    --exclude bolmo-jni --no-verify --target-dir "$work/packages"

# A workspace of the unpacked crates, with the profiles of this one.
cd "$work/unpacked"
for package in "$work"/packages/package/*.crate; do tar xzf "$package"; done
{
    echo '[workspace]'
    echo 'resolver = "3"'
    echo 'members = ["bolmo-*"]'
    sed -n '/^\[profile\.dev\]/,/^$/p' "$work/copy/Cargo.toml"
    echo '[patch.crates-io]'
    for folder in *-*/; do
        name=${folder%-*}
        echo "$name = { path = \"$folder\" }"
        [ -e "$folder/README.md" ] || { echo "test-crates: $name has no README.md" >&2; exit 1; }
    done
} >Cargo.toml
cp "$work/copy/Cargo.lock" .
cargo check --quiet --workspace --target-dir "$target"
echo "test-crates: $(ls | grep -c -- '-[0-9]') packages"
