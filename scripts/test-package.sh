#!/bin/bash
# Installs the command and libbolmo into a temporary prefix and uses both from there: the command, its completions and
# manual pages; the library as a program would, with headers alone, CMake, pkg-config, the examples in C and C++. Also
# checks exports, dependencies and name of the shared library.
#
#   scripts/test-package.sh BOLMO [FOLDER]    BOLMO is the built command; FOLDER has libraries that are built already
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
bolmo=$(realpath "$1")
export BOLMO_BUILT=${2-} BOLMO_COMMAND=$bolmo
work=$target/test-package
prefix=$work/prefix
model=$root/examples/demo-model
rm -rf "$work"
mkdir -p "$work"
export LC_ALL=C

fail() { echo "test-package: $*" >&2; exit 1; }
step() { echo "-- $*"; }
# same WHAT EXPECTED FOUND
same() {
    [ "$2" = "$3" ] && return
    diff <(echo "$2") <(echo "$3") >&2 || true
    fail "$1 differs: expected are the lines with <, found are those with >"
}

step "install, twice, with another folder for libraries, and uninstall"
PREFIX=$prefix LIBDIR=lib DESTDIR='' scripts/install.sh install | tee "$work/log"
same "the list of installed files" "$(find "$prefix" ! -type d | LC_ALL=C sort)" \
    "$(sed -n 's/^installed //p' "$work/log" | LC_ALL=C sort)"
PREFIX=/opt/bolmo LIBDIR=lib/some-system DESTDIR=$work/stage scripts/install.sh install >/dev/null
PREFIX=/opt/bolmo LIBDIR=lib/some-system DESTDIR=$work/stage scripts/install.sh install >/dev/null
same "what pkg-config says of a moved prefix" "-I$work/stage/opt/bolmo/include" \
    "$(PKG_CONFIG_PATH=$work/stage/opt/bolmo/lib/some-system/pkgconfig pkg-config --cflags bolmo |
        sed 's/^-I//; s/ *$//' | xargs realpath | sed 's/^/-I/')"
PREFIX=/opt/bolmo LIBDIR=lib/some-system DESTDIR=$work/stage scripts/install.sh uninstall >/dev/null
same "what is left after uninstalling, folders included" "$work/stage/opt" "$(find "$work/stage" -mindepth 1)"
# Folders that were there, and files of others, stay.
mkdir -p "$work/library/opt/bolmo/include" "$work/library/opt/bolmo/bin"
PREFIX=/opt/bolmo LIBDIR=lib DESTDIR=$work/library scripts/install.sh install-lib >/dev/null
same "what install-lib installs" "bin include lib share" "$(cd "$work/library/opt/bolmo" && echo *)"
touch "$work/library/opt/bolmo/lib/pkgconfig/other.pc"
PREFIX=/opt/bolmo LIBDIR=lib DESTDIR=$work/library scripts/install.sh uninstall >/dev/null 2>&1
same "what uninstalling leaves of others" "bin include lib lib/pkgconfig lib/pkgconfig/other.pc" \
    "$(cd "$work/library/opt/bolmo" && find . -mindepth 1 | sed 's|^\./||' | LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//')"

if [ "$(rustc -vV | sed -n 's/^host: //p')" = x86_64-unknown-linux-gnu ]; then
    step "the libraries of the target that was built, and none of another one"
    # The folder of a target that was built. Those of the host stand beside it, and are old.
    crossed=$work/crossed
    mkdir -p "$crossed/built" "$crossed/bin"
    ln -s "$(realpath "${BOLMO_BUILT:-$target/release}")"/libbolmo.{a,so} "$crossed/built"
    BOLMO_BUILT=$crossed/built CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu PREFIX=$crossed/prefix LIBDIR=lib DESTDIR='' \
        scripts/install.sh install-lib >"$work/log"
    ! grep 'installing for' "$work/log" || fail "the host's own target counts as another one"
    # What cargo answers decides, not the place where the host's files would be.
    printf '%s\n' '#!/bin/sh' "echo '{\"filenames\":[\"$crossed/triple/aarch64-unknown-linux-gnu/release/libbolmo.a\"]}'" \
        >"$crossed/bin/cargo"
    chmod +x "$crossed/bin/cargo"
    mkdir -p "$crossed/triple/aarch64-unknown-linux-gnu/release"
    touch "$crossed/triple/aarch64-unknown-linux-gnu/release/libbolmo.a"
    if PATH=$crossed/bin:$PATH BOLMO_BUILT='' PREFIX=$crossed/none LIBDIR=lib DESTDIR='' \
        scripts/install.sh install-lib >"$work/log" 2>&1; then
        fail "libraries of the host were installed for another target"
    fi
    grep -q 'aarch64-unknown-linux-gnu/release has no libbolmo.so for aarch64-unknown-linux-gnu' "$work/log" ||
        fail "the message about a missing library is: $(cat "$work/log")"
    [ ! -e "$crossed/none" ] || fail "something was installed"
    # A command that doesn't run here.
    printf 'not a program' >"$crossed/built/bolmo"
    chmod +x "$crossed/built/bolmo"
    if BOLMO_BUILT=$crossed/built BOLMO_COMMAND=$crossed/built/bolmo BOLMO_HOST_COMMAND=/nowhere STRIP=true \
        PREFIX=$crossed/none LIBDIR=lib DESTDIR='' scripts/install.sh install >"$work/log" 2>&1; then
        fail "a command that doesn't run was installed without its manual pages"
    fi
    grep -q 'BOLMO_HOST_COMMAND' "$work/log" || fail "no advice for a command that doesn't run: $(cat "$work/log")"
    BOLMO_BUILT=$crossed/built BOLMO_COMMAND=$crossed/built/bolmo BOLMO_HOST_COMMAND=$bolmo STRIP=true \
        PREFIX=$crossed/prefix LIBDIR=lib DESTDIR='' scripts/install.sh install >/dev/null
    [ -s "$crossed/prefix/share/man/man1/bolmo.1" ] || fail "no manual pages were made by the host's command"
fi

step "the installed command, its completions and manual pages"
same "the version" "$("$bolmo" --version)" "$("$prefix/bin/bolmo" --version)"
for file in share/bash-completion/completions/bolmo share/zsh/site-functions/_bolmo \
    share/fish/vendor_completions.d/bolmo.fish share/man/man1/bolmo{,-generate,-train-stage1}.1; do
    [ -s "$prefix/$file" ] || fail "$file is missing or empty"
done
same "what bash completes" generate "$(bash -c '
    source "$1/share/bash-completion/completions/bolmo"
    COMP_WORDS=(bolmo gen) COMP_CWORD=1
    _bolmo bolmo gen bolmo
    echo "${COMPREPLY[@]}"' - "$prefix")"

step "each header alone, in every standard, by gcc and clang, without warnings"
warnings=(-Wall -Wextra -pedantic -Werror -I "$prefix/include")
echo '#include <bolmo.h>' >"$work/alone.c"
echo '#include <bolmo.hpp>' >"$work/alone.cpp"
for compiler in "gcc g++" "clang clang++"; do
    read -r c cxx <<<"$compiler"
    for standard in c99 c11; do "$c" -std=$standard "${warnings[@]}" -c "$work/alone.c" -o "$work/alone.o"; done
    for standard in c++11 c++20; do
        "$cxx" -x c++ -std=$standard "${warnings[@]}" -c "$work/alone.c" -o "$work/alone.o"
    done
    for standard in c++17 c++20; do
        "$cxx" -std=$standard "${warnings[@]}" -c "$work/alone.cpp" -o "$work/alone.o"
        "$cxx" -std=$standard -fno-exceptions "${warnings[@]}" -c "$work/alone.cpp" -o "$work/alone.o"
        # With its templates used.
        "$cxx" -std=$standard "${warnings[@]}" -c ffi/tests/cpp/wrapper.cpp -o "$work/alone.o"
        "$cxx" -std=$standard -fno-exceptions "${warnings[@]}" -c ffi/tests/cpp/wrapper.cpp -o "$work/alone.o"
    done
done

step "bolmo.hpp has every function of bolmo.h; README.md has the header's example"
declared=$(gcc -E -P ffi/include/bolmo.h | grep -oE '\bbolmo_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u)
same "the list of functions in bolmo.hpp" "$declared" \
    "$(grep -oE '\bbolmo_[a-z0-9_]+' ffi/include/bolmo.hpp | sort -u | comm -12 - <(echo "$declared"))"
sed -n '/## A complete program/,/@endcode/s/^ \* \{0,1\}//p' ffi/include/bolmo.h |
    sed '1,/@code/d; /@endcode/d' >"$work/example.c"
same "README.md's example" "$(cat "$work/example.c")" "$(sed -n '/^```c$/,/^```$/{/^```/!p}' README.md)"

library=$prefix/lib/libbolmo.so
if [ "$(uname)" = Linux ]; then
    step "the shared library: exports, needs, name, alignment"
    same "the list of exported symbols" "$declared" "$(nm -D --defined-only "$library" | awk '$2 != "A" { print $NF }' | sed 's/@@BOLMO_0$//' | sort -u)"
    same "how many symbols have a version" "$(wc -l <<<"$declared")" \
        "$(nm -D --defined-only "$library" | grep -c '@@BOLMO_0$')"
    same "SONAME" libbolmo.so.0 "$(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')"
    odd=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' |
        grep -vE '^(libc|libm|libgcc_s|libpthread|libdl|ld-linux[-a-z0-9_]*)\.so\.[0-9]+$' || true)
    same "the list of unexpected libraries that it needs" "" "$odd"
    same "the alignment of its segments" 0x4000 "$(readelf -lW "$library" | awk '$1 == "LOAD" { print $NF }' | sort -u)"
fi

# Runs a program, and fails if it does or writes nothing; its output goes to $work/out.
checked() {
    "$@" >"$work/out" 2>"$work/err" || { cat "$work/out" "$work/err" >&2; fail "$* failed"; }
    [ -s "$work/out" ] || fail "$* wrote nothing"
}

# run_examples FOLDER_OF_C FOLDER_OF_CPP
run_examples() {
    checked "$bolmo" generate "The next day" --max-bytes 40
    cp "$work/out" "$work/expected"
    checked "$1/generate" "$model" "The next day" --max-bytes 40
    cmp "$work/out" "$work/expected" || fail "examples/c/generate doesn't write what the bolmo command does"
    checked "$1/generate" "$model" "The next day" --max-bytes 40 --temperature 0.8 --seed 7 \
        --subwords "$model/tokenizer.json"
    ! "$1/generate" "$work" x >"$work/out" 2>"$work/err" || fail "examples/c/generate opened a folder without a model"
    grep -q '^error: not found: ' "$work/err" ||
        fail "the message about a folder without a model has no reason: $(cat "$work/err")"

    checked "$2/branch" "$model" "This is a story about Mia," 2 "$work/branch.bolmo"
    grep -q 'goes on the same way' "$work/out" || fail "a restored session continues differently"
    [ -s "$work/branch.bolmo" ] || fail "branch wrote no snapshot"
    printf 'What is a file?\nAnd a folder?\n' >"$work/questions"
    checked "$2/chat" "$model" 30 <"$work/questions"
    iconv -f UTF-8 -t UTF-8 "$work/out" >/dev/null || fail "chat wrote an incomplete character"
    checked "$2/constrained" "$model"
    same "how often constrained matches" 2 "$(grep -c '^-- matched$' "$work/out")"
}

for static in OFF ON; do
    step "CMake, BOLMO_STATIC=$static"
    for language in c cpp; do
        cmake -S "examples/$language" -B "$work/$language-$static" -DCMAKE_PREFIX_PATH="$prefix" \
            -DBOLMO_STATIC=$static -DCMAKE_BUILD_TYPE=Release >"$work/log" &&
            cmake --build "$work/$language-$static" >>"$work/log" ||
            { cat "$work/log" >&2; fail "examples/$language doesn't build"; }
    done
    uses=$(readelf -d "$work/c-$static/generate" | grep -c 'NEEDED.*libbolmo' || true)
    same "how many libbolmo.so the program needs" "$([ $static = OFF ] && echo 1 || echo 0)" "$uses"
    run_examples "$work/c-$static" "$work/cpp-$static"
done

step "CMake: a component, and versions"
mkdir -p "$work/find"
cat >"$work/find/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.16)
project(find LANGUAGES C)
find_package(bolmo 0.1 REQUIRED COMPONENTS static)
get_target_property(kind bolmo::bolmo INTERFACE_LINK_LIBRARIES)
find_package(bolmo 1.0 QUIET)
set(newer ${bolmo_FOUND})
find_package(bolmo QUIET COMPONENTS neither)
file(WRITE "${CMAKE_BINARY_DIR}/found" "${kind} ${newer}")
END
cmake -S "$work/find" -B "$work/find/build" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "find_package failed"; }
same "what find_package found" "bolmo::bolmo-static 0" "$(cat "$work/find/build/found")"

step "the repository as a part of a CMake project"
mkdir -p "$work/contains"
cat >"$work/contains/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(contains C)
include(FetchContent)
FetchContent_Declare(bolmo SOURCE_DIR "$root")
FetchContent_MakeAvailable(bolmo)
foreach(kind bolmo bolmo-shared bolmo-static)
    add_executable(with-\${kind} "$root/examples/c/generate.c")
    target_link_libraries(with-\${kind} PRIVATE bolmo::\${kind})
endforeach()
END
cmake -S "$work/contains" -B "$work/contains/build" -DBOLMO_PREBUILT="$(realpath "${BOLMO_BUILT:-$target/release}")" \
    -DCMAKE_BUILD_TYPE=Release >"$work/log" 2>&1 && cmake --build "$work/contains/build" >>"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "a project that contains the repository doesn't build"; }
for kind in bolmo bolmo-shared bolmo-static; do
    checked "$work/contains/build/with-$kind" "$model" "The next day" --max-bytes 40
    cmp "$work/out" "$work/expected" || fail "with-$kind doesn't write what the bolmo command does"
done

step "README.md's lines for pkg-config, in another prefix than the system's"
# The block that begins with the path, run as it is.
sed -n '/^export PKG_CONFIG_PATH=/,/^```$/{/^```/!p}' README.md >"$work/lines"
grep -q '^cc program.c' "$work/lines" || fail "README.md doesn't say how to compile with pkg-config"
mkdir -p "$work/home"
ln -sfn "$prefix" "$work/home/.local"
for lines in '1,/pkg-config --cflags/p' '/^export/p; /--static/p'; do
    rm -rf "$work/compiled"
    mkdir "$work/compiled"
    cp "$work/example.c" "$work/compiled/program.c"
    sed -n "$lines" "$work/lines" >"$work/compiled/lines"
    (cd "$work/compiled" && env -u PKG_CONFIG_PATH -u LD_LIBRARY_PATH HOME="$work/home" bash -e lines)
    checked env -u LD_LIBRARY_PATH "$work/compiled/program" "$model"
done

step "pkg-config, shared and static"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
same "the version" "$("$bolmo" --version | awk '{ print $2 }')" "$(pkg-config --modversion bolmo)"
read -ra flags <<<"$(pkg-config --cflags --libs bolmo)"
gcc -std=c99 "$work/example.c" -o "$work/example" "${flags[@]}" -Wl,-rpath,"$prefix/lib"
checked "$work/example" "$model"
gcc -std=c99 examples/c/generate.c -o "$work/generate" "${flags[@]}" -Wl,-rpath,"$prefix/lib"
checked "$work/generate" "$model" "The next day" --max-bytes 40
cmp "$work/out" "$work/expected"
read -ra flags <<<"$(pkg-config --static --cflags --libs bolmo | sed 's/-lbolmo/-l:libbolmo.a/')"
gcc -std=c99 examples/c/generate.c -o "$work/generate" "${flags[@]}"
checked "$work/generate" "$model" "The next day" --max-bytes 40
cmp "$work/out" "$work/expected"

step "the wrapper's own test, with exceptions and without"
read -ra flags <<<"$(pkg-config --cflags --libs bolmo)"
for extra in -fexceptions -fno-exceptions; do
    g++ -std=c++17 $extra ffi/tests/cpp/wrapper.cpp -o "$work/wrapper" "${flags[@]}" -Wl,-rpath,"$prefix/lib"
    checked "$work/wrapper" "$model" "$root/tests/golden/infer/subword_tokenizer"
done
echo "test-package: all is well; $(basename "$(realpath "$library")") has $(wc -c <"$library") bytes, stripped"
