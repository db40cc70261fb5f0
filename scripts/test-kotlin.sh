#!/bin/bash
# Tests the Kotlin package: its unit tests, with the checks of the JVM for JNI; then the package as users get it, from a
# Maven repository in a fresh project, on the oldest and the newest JDK of this machine: the programs of its README in
# Kotlin and Java, and examples/kotlin; then the AAR for Android, with this machine's library in place of Android's.
#
#   scripts/test-kotlin.sh FOLDER BOLMO     FOLDER has the built libbolmo_jni, BOLMO is the built command
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
folder=$(realpath "$1") bolmo=$(realpath "$2")
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
package=$root/bindings/kotlin
work=$target/kotlin
model=$root/examples/demo-model
prompt="This is a story about Mia,"
export LC_ALL=C.UTF-8
rm -rf "$work"
mkdir -p "$work"

fail() { echo "test-kotlin: $*" >&2; exit 1; }
step() { echo "-- $* ($SECONDS s)"; }
# same WHAT EXPECTED FOUND
same() {
    [ "$2" = "$3" ] && return
    diff <(echo "$2") <(echo "$3") >&2 || true
    fail "$1 differs: expected are the lines with <, found are those with >"
}
# says WHAT FILE TEXT…: each text is in the file
says() {
    local what=$1 file=$2 text
    shift 2
    for text in "$@"; do
        grep -qF -- "$text" "$file" || { cat "$file" >&2; fail "$what doesn't say: $text"; }
    done
}

step "versions"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
for pom in bindings/kotlin bindings/kotlin/android examples/kotlin; do
    same "the version in $pom/pom.xml" "$version" \
        "$(sed -n '0,/<version>/s/.*<version>\(.*\)<.*/\1/p' "$pom/pom.xml")"
done

step "the package and its unit tests, with -Xcheck:jni"
scripts/kotlin.sh "$folder" "$work/published" -P android "-Dbolmo.library.path=$folder" \
    "-Dbolmo.command=$bolmo" "-Dtest.options=-Xcheck:jni" >"$work/log" 2>&1 || { tail -n 200 "$work/log" >&2; fail "the unit tests failed"; }
grep '^kotlin: ' "$work/log"
if grep -nE 'WARNING in native|FATAL ERROR in native|WARNING: JNI' "$work/log" \
    "$package"/target/surefire-reports/*; then
    fail "-Xcheck:jni found something, above; all is in $work/log"
fi
python3 - "$package"/target/surefire-reports/*.xml <<'END'
import sys
import xml.etree.ElementTree as ElementTree
suites = [ElementTree.parse(name).getroot() for name in sys.argv[1:]]
count = lambda key: sum(int(suite.get(key)) for suite in suites)
print(f"test-kotlin: {count('tests')} unit tests in {len(suites)} classes, {count('skipped')} skipped, "
      f"{sum(float(suite.get('time')) for suite in suites):.0f} s")
for test in (test for suite in suites for test in suite.iter("testcase") if test.find("skipped") is not None):
    print(f"test-kotlin: skipped {test.get('classname')}.{test.get('name')}: {test.find('skipped').get('message')}")
if not count("tests"):
    sys.exit("test-kotlin: no unit test has run")
END

step "the jar"
jar=$work/published/dev/bolmo/bolmo/$version/bolmo-$version.jar
for file in "${jar%.jar}.pom" "$jar" "${jar%.jar}-sources.jar"; do
    [ -s "$file" ] || fail "$file was not installed"
done
platform=$(basename "$(dirname "$(find "$package/target/natives" -name '*bolmo_jni*' ! -name '*.sha256')")")
library=$(basename "$(find "$package/target/natives/META-INF/native/$platform" ! -name '*.sha256' -type f)")
native=META-INF/native/$platform/$library
python3 - "$jar" "$native" <<'END'
import re, sys, zipfile
names = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if not name.endswith("/")}
classes = re.compile(r"dev/bolmo/[\w$]+\.class$")
expected = {
    sys.argv[2], sys.argv[2] + ".sha256", "META-INF/MANIFEST.MF", "META-INF/LICENSE", "META-INF/bolmo.kotlin_module",
    "META-INF/proguard/bolmo.pro", "META-INF/maven/dev.bolmo/bolmo/pom.xml",
    "META-INF/maven/dev.bolmo/bolmo/pom.properties",
}
found = {name for name in names if not classes.match(name)}
if found != expected:
    sys.exit(f"test-kotlin: the jar lacks {sorted(expected - found)} and has {sorted(found - expected)}")
END
mkdir -p "$work/jar"
(cd "$work/jar" && python3 -m zipfile -e "$jar" .)
hash=$(cat "$work/jar/$native.sha256")
same "the hash beside the library" "$(sha256sum "$work/jar/$native" | cut -d' ' -f1)" "$hash"
if [ "$(uname)" = Linux ]; then scripts/aar.py libraries "$work/jar/$native"; fi

step "a fresh project"
# Maven's files as they are now, and nothing of ours that an earlier build has installed.
repository=$work/m2
cp -al "$HOME/.m2/repository" "$repository" 2>/dev/null || cp -r "$HOME/.m2/repository" "$repository"
rm -rf "$repository/dev/bolmo"
maven=(mvn -B -ntp -q -Dstyle.color=never "-Dmaven.repo.local=$repository" "-Dbolmo.repository=file://$work/published"
    -Dkotlin.compiler.daemon=false)
mkdir -p "$work/consumer/src"
cp "$package/consumer/pom.xml" "$work/consumer/"
# The programs of the README: blocks of code after a comment with the name of a file.
python3 - "$package/README.md" "$work/consumer/src" <<'END'
import pathlib, re, sys
blocks = re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)```", pathlib.Path(sys.argv[1]).read_text(), re.DOTALL)
for name, text in blocks:
    pathlib.Path(sys.argv[2], name).write_text(text)
names = {name for name, _ in blocks}
if not {"QuickStart.kt", "JavaQuickStart.java"} <= names:
    sys.exit(f"test-kotlin: README.md has {sorted(names)}, expected QuickStart.kt and JavaQuickStart.java too")
END
"${maven[@]}" -f "$work/consumer/pom.xml" compile
classes="$work/consumer/target/classes:$work/consumer/target/dependency/*"

# The JDK of this shell and the newest one, if they differ.
major() { "$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'; }
javas=("$(realpath "$(command -v java)")")
newest=$(for java in /usr/lib/jvm/*/bin/java "${JAVA_HOME:-/nowhere}/bin/java"; do
    [ ! -x "$java" ] || echo "$(major "$java") $(realpath "$java")"
done | sort -n | tail -n 1)
if [ -n "$newest" ] && [ "${newest%% *}" != "$(major "${javas[0]}")" ]; then javas+=("${newest#* }"); fi
majors=$(for java in "${javas[@]}"; do major "$java"; done | sort -n)
echo "test-kotlin: tested are JDK ${majors//$'\n'/ and }"
[ "${majors%%$'\n'*}" = 17 ] || echo "test-kotlin: there is no JDK 17, the oldest one that is supported: not tested"
[ "${majors##*$'\n'}" -ge 21 ] || echo "test-kotlin: there is no JDK 21 or newer: not tested"

cache=(-Dbolmo.library.cache="$work/cache")
expected=$("$bolmo" generate --model "$model" --max-bytes 200 "$prompt")
for java in "${javas[@]}"; do
    step "programs of the README on JDK $(major "$java")"
    native_access=()
    [ "$(major "$java")" -lt 22 ] || native_access=(--enable-native-access=ALL-UNNAMED)
    for program in QuickStartKt JavaQuickStart; do
        same "the text of $program" "$expected" \
            "$("$java" "${native_access[@]}" "${cache[@]}" -cp "$classes" "$program")"
    done
done

step "the library is extracted once"
extracted=$work/cache/$hash/$library
same "what the cache has" "$extracted" "$(find "$work/cache" -type f)"
before=$(stat -c '%i %Y' "$extracted")
"${javas[0]}" "${cache[@]}" -cp "$classes" QuickStartKt >/dev/null
same "the file in the cache" "$before" "$(stat -c '%i %Y' "$extracted")"
pids=()
for index in 1 2 3; do
    "${javas[0]}" -Dbolmo.library.cache="$work/cache-shared" -cp "$classes" QuickStartKt >"$work/text-$index" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail "a program failed that started together with others"; done
for index in 1 2 3; do same "the text of program $index" "$expected" "$(cat "$work/text-$index")"; done
same "the number of files that they extracted" 1 "$(find "$work/cache-shared" -type f | wc -l)"

step "messages without a library"
# Fails, and says each text: refused WHAT OPTION TEXT…
refused() {
    local what=$1 option=$2
    shift 2
    if "${javas[0]}" "$option" "${cache[@]}" -cp "$classes" QuickStartKt >"$work/refused" 2>&1; then
        fail "$what: the program ran"
    fi
    says "$what" "$work/refused" NativeLibraryException "$@"
}
refused "another architecture" -Dos.arch=riscv64 linux-riscv64 META-INF/native/linux-riscv64/libbolmo_jni.so "$platform"
refused "a folder without a library" "-Dbolmo.library.path=$work" "$work/$library" "bolmo.library.path" "$platform"
other=$folder/${library/_jni/}
if [ -e "$other" ]; then
    refused "another library" "-Dbolmo.library.path=$other" "$other" "doesn't tell its version" "$version"
fi

step "examples/kotlin"
mkdir -p "$work/example"
cp -r examples/kotlin/pom.xml examples/kotlin/src "$work/example/"
# It names no repository: its users have installed the package into their own.
mkdir -p "$repository/dev"
cp -r "$work/published/dev/bolmo" "$repository/dev/"
"${maven[@]}" -f "$work/example/pom.xml" package
for java in "${javas[@]}"; do
    python3 "$root/scripts/test-kotlin-example.py" "$java" "$work/example/target/generate.jar" "$work/cache" "$bolmo" \
        "$model" || fail "examples/kotlin failed on JDK $(major "$java")"
done

step "the AAR"
scripts/android.sh --host "$work/jar/$native" "$work/published"
aar=$work/published/dev/bolmo/bolmo-android/$version/bolmo-android-$version.aar
[ -s "$aar" ] && [ -s "${aar%.aar}.pom" ] || fail "$aar was not installed with its POM"
r8=$work/r8.jar r8_version=9.5.28
copy=org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy
if mvn -B -ntp -q -Dstyle.color=never "$copy" "-Dartifact=com.android.tools:r8:$r8_version" "-DoutputDirectory=$work" \
    -Dmdep.stripVersion=true >/dev/null 2>&1; then
    mkdir -p "$work/aar"
    (cd "$work/aar" && python3 -m zipfile -e "$aar" .)
    # Without optimization, which makes classes for the JVM that don't verify (toString of data classes). What matters
    # here is what is removed and renamed.
    printf '%s\n' '-keep class QuickStartKt { public static void main(java.lang.String[]); }' -dontoptimize \
        >"$work/app.pro"
    libraries=() beside_jars="$work/libraries/*"
    mkdir -p "$work/libraries"
    for file in "$work"/consumer/target/dependency/*.jar; do
        case "$file" in */bolmo-*) ;; *) cp "$file" "$work/libraries/" && libraries+=(--classpath "$file") ;; esac
    done
    (cd "$work/consumer/target/classes" && python3 -m zipfile -c "$work/app.jar" *)
    beside=-Dbolmo.library.path=$work/jar/META-INF/native/$platform
    # shrink OUTPUT RULES…: as R8 does it for an app, but to classes for the JVM
    shrink() {
        local output=$1 rules=() file
        shift
        for file in "$@"; do rules+=(--pg-conf "$file"); done
        java -cp "$r8" com.android.tools.r8.R8 --release --classfile --lib "$(java_home)" --output "$output" \
            "${rules[@]}" "$work/app.jar" "$work/aar/classes.jar" "${libraries[@]}" >"$work/r8.log" 2>&1 ||
            { cat "$work/r8.log" >&2; fail "R8 failed"; }
    }
    java_home() { java -XshowSettings:properties -version 2>&1 | sed -n 's/ *java.home = //p'; }
    step "an app after R8"
    shrink "$work/shrunk.jar" "$work/app.pro" "$work/aar/proguard.txt"
    same "the text of an app that R8 has shrunk" "$expected" \
        "$("${javas[0]}" "$beside" -cp "$work/shrunk.jar:$beside_jars" QuickStartKt)"
    before=$(cat "$work/app.jar" "$work/aar/classes.jar" | wc -c)
    echo "test-kotlin: classes of app and package: $before bytes before R8, $(wc -c <"$work/shrunk.jar") after it"
    # The rules are what it takes: without them the same app doesn't run.
    shrink "$work/broken.jar" "$work/app.pro"
    if "${javas[0]}" "$beside" -cp "$work/broken.jar:$beside_jars" QuickStartKt >/dev/null 2>&1; then
        fail "an app runs after R8 without proguard.txt, so this test shows nothing"
    fi
else
    echo "test-kotlin: R8 can't be had; the rules in proguard.txt were not tested"
fi
