#!/bin/bash
# Builds the Kotlin package: bindings/kotlin/target/bolmo-VERSION.jar, with the native library of this machine.
#
#   scripts/kotlin.sh [FOLDER [REPOSITORY [MAVEN_OPTION…]]]
#
# FOLDER has the built libbolmo_jni; if it is empty or missing, the library is built, optimized. Libraries for other
# systems are taken from folders in it that are named as in the jar (linux-aarch64, macos-aarch64, windows-x86_64 …).
# The package is installed into REPOSITORY, a Maven repository; if that is empty or missing, into the one of this user.
# With options for Maven, tests run unless these say otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
package=$PWD/bindings/kotlin
natives=$package/target/natives

fail() { echo "kotlin: $*" >&2; exit 1; }

folder=${1-} repository=${2-}
shift $(($# > 2 ? 2 : $#))
[ "$#" != 0 ] || set -- -Dmaven.test.skip=true
if [ -z "$folder" ]; then
    cargo build --release -p bolmo-jni
    folder=$target/release
fi

case "$(uname -s)" in
Linux) os=linux name=libbolmo_jni.so ;;
Darwin) os=macos name=libbolmo_jni.dylib ;;
*) fail "$(uname -s) is not supported: put the library of this system into a folder of FOLDER" ;;
esac
case "$(uname -m)" in
x86_64 | amd64) arch=x86_64 ;;
aarch64 | arm64) arch=aarch64 ;;
*) arch=$(uname -m) ;;
esac
[ -e "$folder/$name" ] || fail "there is no $folder/$name: build bolmo-jni, or name the folder that has it"

# native FILE OS-ARCH: puts a library where the jar has it, with the hash that names its folder when it is extracted
native() {
    local made
    made=$natives/META-INF/native/$2/$(basename "$1")
    mkdir -p "$(dirname "$made")"
    cp "$1" "$made"
    case "$2" in
    "$os-$arch") if [ "$os" = macos ]; then strip -x "$made"; else strip --strip-unneeded "$made"; fi ;;
    # Of another system: strip of this one may not know its format.
    *) ;;
    esac
    if command -v sha256sum >/dev/null; then sha256sum "$made"; else shasum -a 256 "$made"; fi |
        cut -d' ' -f1 >"$made.sha256"
    echo "kotlin: $2 has $(wc -c <"$made") bytes"
}
rm -rf "$natives"
native "$folder/$name" "$os-$arch"
for file in "$folder"/{linux,macos,windows}-*/*bolmo_jni.*; do
    [ ! -e "$file" ] || native "$file" "$(basename "$(dirname "$file")")"
done

# Maven doesn't remove classes, libraries and reports of an earlier build.
rm -rf "$package"/target/{classes,test-classes,surefire-reports} "$package"/target/*.jar
maven=(mvn -B -ntp -q -Dstyle.color=never -f "$package/pom.xml" -Dkotlin.compiler.daemon=false)
if [ -z "$repository" ]; then
    "${maven[@]}" "$@" install
else
    "${maven[@]}" "$@" package
    version=$(sed -n '0,/<version>/s/.*<version>\(.*\)<.*/\1/p' "$package/pom.xml")
    made=$package/target/bolmo-$version
    "${maven[@]}" install:install-file -Dfile="$made.jar" -Dsources="$made-sources.jar" \
        -DpomFile="$package/pom.xml" -DlocalRepositoryPath="$(realpath -m "$repository")"
fi
for file in "$package"/target/bolmo-*.jar; do echo "kotlin: ${file#"$PWD"/} has $(wc -c <"$file") bytes"; done
