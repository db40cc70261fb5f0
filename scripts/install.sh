#!/bin/bash
# Installs or removes the command, with its completions and manual pages, and libbolmo with its headers. Safe to repeat:
# a file gets its name only when it is complete.
#
#   scripts/install.sh install       builds the command and the library, then installs them
#   scripts/install.sh install-lib   the library alone
#   scripts/install.sh uninstall     removes what either has installed
#
# PREFIX (default /usr/local), LIBDIR (a folder in PREFIX, default lib) and DESTDIR (a prefix of all paths, default
# empty) say where. Tests set BOLMO_BUILT to a folder that has the built libraries, and BOLMO_COMMAND to the built
# command, so that nothing is built twice.
set -euo pipefail
cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/usr/local} LIBDIR=${LIBDIR:-lib} DESTDIR=${DESTDIR:-}

fail() { echo "install: $*" >&2; exit 1; }
# setting NAME FILE: the first quoted text after NAME in FILE
setting() { sed -n "s/^$1[^\"]*\"\([^\"]*\)\".*/\1/p" "$2" | head -n 1; }

version=$(setting 'version = ' Cargo.toml)
so_version=$(setting 'const SO_VERSION' ffi/build.rs)
url=$(setting 'repository = ' Cargo.toml)
[ -n "$version" ] && [ -n "$so_version" ] || fail "Cargo.toml or ffi/build.rs doesn't say the version"
case "$PREFIX" in /*) ;; *) fail "PREFIX is $PREFIX, which is not absolute: give a path that begins with /" ;; esac
case "/$LIBDIR/" in //* | */../* | */./*)
    fail "LIBDIR is $LIBDIR, which is not a plain relative path: give a folder in PREFIX, such as lib or lib64"
    ;;
esac

case "$(uname)" in
Linux | *BSD)
    built=libbolmo.so shared=libbolmo.so.$version soname=libbolmo.so.$so_version plain=libbolmo.so
    strip_options=(--strip-unneeded)
    ;;
Darwin)
    built=libbolmo.dylib shared=libbolmo.$version.dylib soname=libbolmo.$so_version.dylib plain=libbolmo.dylib
    strip_options=(-x)
    ;;
*) fail "$(uname) is not supported: copy the libraries that cargo builds by hand" ;;
esac

include=$DESTDIR$PREFIX/include lib=$DESTDIR$PREFIX/$LIBDIR
bin=$DESTDIR$PREFIX/bin share=$DESTDIR$PREFIX/share
library_files=("$include/bolmo.h" "$include/bolmo.hpp" "$lib/$shared" "$lib/$soname" "$lib/$plain" "$lib/libbolmo.a"
    "$lib/pkgconfig/bolmo.pc" "$lib/cmake/bolmo/bolmo-config.cmake" "$lib/cmake/bolmo/bolmo-config-version.cmake")
bash_file=$share/bash-completion/completions/bolmo
zsh_file=$share/zsh/site-functions/_bolmo
fish_file=$share/fish/vendor_completions.d/bolmo.fish
command_files=("$bin/bolmo" "$bash_file" "$zsh_file" "$fish_file")
# The pages are listed, so that uninstalling needs no command. A page that is missing here fails the installation.
for page in bolmo bolmo-{bench,completions,devices,eval,generate,info,init,merge,quantize,score} \
    bolmo-train bolmo-train-{corpus,init,plot,stage1,stage2,subword,tokenizer}; do
    command_files+=("$share/man/man1/$page.1")
done

# build PACKAGE...: builds the packages. Sets `static_libs` to the libraries that rustc says a program needs besides
# libbolmo.a.
build() {
    if [ -z "${BOLMO_BUILT-}" ]; then
        # All at once: alone, each package would choose other features of dependencies.
        cargo build --release "${@/#/--package=}" >&2 || fail "the build failed"
    fi
    if [ -n "${BOLMO_BUILT-}" ] || [ "$(uname)" = Linux ]; then
        # On Linux libbolmo.a needs what the standard library needs, and no more.
        rustc --crate-type staticlib --crate-name empty --print native-static-libs -o "$scratch/empty.a" - \
            </dev/null >"$scratch/log" 2>&1 || fail "rustc failed: $(cat "$scratch/log")"
    else
        cargo rustc --release -p bolmo-ffi --lib -- --print native-static-libs 2>&1 | tee "$scratch/log" >&2 ||
            fail "the build failed"
    fi
    # rustc names a library once for each crate that needs it.
    static_libs=$(sed -n 's/^note: native-static-libs: //p' "$scratch/log" | sed 's/-framework /-framework@/g' |
        tr -s ' ' '\n' | awk '!seen[$0]++' | tr '\n' ' ' | sed 's/ $//')
    [ -n "$static_libs" ] || fail "rustc didn't say what libbolmo.a needs"
}

# place FILE NAME MODE: copies FILE to NAME
place() {
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}

# link TARGET NAME: makes a symbolic link
link() {
    rm -f "$2.new"
    ln -s "$1" "$2.new"
    mv -f "$2.new" "$2"
}

# fill TEMPLATE NAME: fills in a template of ffi/package
fill() {
    sed -e "s|@VERSION@|$version|g; s|@MAJOR@|${version%%.*}|g; s|@URL@|$url|g; s|@LIBDIR@|$LIBDIR|g; s|@UP@|$up|g" \
        -e "s|@SHARED_FILE@|$shared|g; s|@SONAME@|$soname|g; s|@POINTER_BYTES@|$pointer_bytes|g" \
        -e "s|@STATIC_LIBS@|$(echo "$static_libs" | tr @ ' ')|g" \
        -e "s|@STATIC_LIBS_LIST@|$(echo "$static_libs" | tr ' @' '; ')|g" "ffi/package/$1" >"$scratch/$1"
    ! grep -n '@[A-Z_]*@' "$scratch/$1" >&2 || fail "ffi/package/$1 has an unknown placeholder"
    place "$scratch/$1" "$2" 644
}

# report FILE...: lists the files that were installed
report() {
    local file
    for file in "$@"; do
        if [ -e "$file" ] || [ -L "$file" ]; then echo "installed $file"; fi
    done
}

install_library() {
    # The path from the library's folder to the prefix.
    up=$(echo "$LIBDIR" | sed 's|[^/][^/]*|..|g')
    pointer_bytes=$(rustc --print cfg | sed -n 's/^target_pointer_width="\(.*\)"/\1/p')
    pointer_bytes=$((pointer_bytes / 8))

    cp "$out/$built" "$scratch/$shared"
    strip "${strip_options[@]}" "$scratch/$shared"
    place ffi/include/bolmo.h "$include/bolmo.h" 644
    place ffi/include/bolmo.hpp "$include/bolmo.hpp" 644
    place "$scratch/$shared" "$lib/$shared" 755
    link "$shared" "$lib/$soname"
    link "$soname" "$lib/$plain"
    place "$out/libbolmo.a" "$lib/libbolmo.a" 644
    fill bolmo.pc.in "$lib/pkgconfig/bolmo.pc"
    fill bolmo-config.cmake.in "$lib/cmake/bolmo/bolmo-config.cmake"
    fill bolmo-config-version.cmake.in "$lib/cmake/bolmo/bolmo-config-version.cmake"
    report "${library_files[@]}"
    echo "$shared has $(wc -c <"$lib/$shared" | tr -d ' ') bytes, stripped"
}

install_command() {
    local bolmo=${BOLMO_COMMAND:-$out/bolmo} file
    cp "$bolmo" "$scratch/bolmo"
    strip "$scratch/bolmo"
    "$bolmo" man "$scratch/man" && "$bolmo" completions bash >"$scratch/bash" &&
        "$bolmo" completions zsh >"$scratch/zsh" && "$bolmo" completions fish >"$scratch/fish" ||
        fail "$bolmo doesn't run here, so its manual pages and completions can't be made"
    for file in "$scratch"/man/*; do
        case " ${command_files[*]} " in
        *" $share/man/man1/$(basename "$file") "*) ;;
        *) fail "$(basename "$file") is missing in the list of pages in scripts/install.sh" ;;
        esac
    done
    place "$scratch/bolmo" "$bin/bolmo" 755
    place "$scratch/bash" "$bash_file" 644
    place "$scratch/zsh" "$zsh_file" 644
    place "$scratch/fish" "$fish_file" 644
    for file in "$scratch"/man/*; do place "$file" "$share/man/man1/$(basename "$file")" 644; done
    report "${command_files[@]}"
}

# install_all PACKAGE...
install_all() {
    out=${BOLMO_BUILT:-${CARGO_TARGET_DIR:-target}/release}
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    build "$@"
    case " $* " in *" bolmo-cli "*) install_command ;; esac
    install_library
}

uninstall_all() {
    local file
    for file in "${command_files[@]}" "${library_files[@]}"; do
        if [ -e "$file" ] || [ -L "$file" ]; then
            rm -f "$file"
            echo "removed $file"
        fi
    done
    [ ! -d "$lib/cmake/bolmo" ] || rmdir "$lib/cmake/bolmo" || echo "install: other files stay in $lib/cmake/bolmo" >&2
}

case "${1-}:$#" in
install:1) install_all bolmo-cli bolmo-ffi ;;
install-lib:1) install_all bolmo-ffi ;;
uninstall:1) uninstall_all ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
    ;;
esac
