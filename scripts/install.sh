#!/bin/bash
# Installs or removes the command, with its completions and manual pages, and libbolmo with its headers. Safe to repeat:
# a file gets its name only when it is complete.
#
#   scripts/install.sh install       builds the command and the library, then installs them
#   scripts/install.sh install-lib   the library alone
#   scripts/install.sh uninstall     removes what either has installed
#
# PREFIX (default /usr/local), LIBDIR (a folder in PREFIX, default lib) and DESTDIR (a prefix of all paths, default
# empty) say where. What cargo builds is installed: for another target with CARGO_BUILD_TARGET, or with build.target in
# cargo's configuration. STRIP names the tool that strips it, and BOLMO_HOST_COMMAND a command of this version that runs
# here, to make the completions and manual pages of one that does not. Uninstalling also removes the folders that an
# installation has made, PREFIX included, once they are empty.
#
# Tests set BOLMO_BUILT to a folder that has the built libraries, and BOLMO_COMMAND to the built command, so that nothing
# is built twice.
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

# names SYSTEM: the names of the library on a system, as `uname` or rustc call it
names() {
    case "$1" in
    Linux | linux | *BSD | *bsd)
        built=libbolmo.so shared=libbolmo.so.$version soname=libbolmo.so.$so_version plain=libbolmo.so
        strip_options=(--strip-unneeded)
        ;;
    Darwin | macos)
        built=libbolmo.dylib shared=libbolmo.$version.dylib soname=libbolmo.$so_version.dylib plain=libbolmo.dylib
        strip_options=(-x)
        ;;
    *) fail "$1 is not supported: copy the libraries that cargo builds by hand" ;;
    esac
}

include=$DESTDIR$PREFIX/include lib=$DESTDIR$PREFIX/$LIBDIR
bin=$DESTDIR$PREFIX/bin share=$DESTDIR$PREFIX/share
# The folders that installations have made, below DESTDIR.
made_file=$share/bolmo/folders
# Sets `library_files`, once the names are known.
list_library() {
    library_files=("$include/bolmo.h" "$include/bolmo.hpp" "$lib/$shared" "$lib/$soname" "$lib/$plain"
        "$lib/libbolmo.a" "$lib/pkgconfig/bolmo.pc" "$lib/cmake/bolmo/bolmo-config.cmake"
        "$lib/cmake/bolmo/bolmo-config-version.cmake" "$share/bolmo/tsan.supp" "$made_file")
}
bash_file=$share/bash-completion/completions/bolmo
zsh_file=$share/zsh/site-functions/_bolmo
fish_file=$share/fish/vendor_completions.d/bolmo.fish
command_files=("$bin/bolmo" "$bash_file" "$zsh_file" "$fish_file")
# The pages are listed, so that uninstalling needs no command. A page that is missing here fails the installation.
for page in bolmo bolmo-{bench,completions,devices,eval,generate,info,init,merge,quantize,score} \
    bolmo-train bolmo-train-{corpus,init,plot,stage1,stage2,subword,tokenizer}; do
    command_files+=("$share/man/man1/$page.1")
done

# build PACKAGE...: builds the packages. Sets `out` to the folder of what was built, `target` to what it was built for,
# and `static_libs` to the libraries that rustc says a program needs besides libbolmo.a.
build() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    target=${CARGO_BUILD_TARGET:-$host} out=${BOLMO_BUILT-}
    if [ -z "$out" ]; then
        # All at once: alone, each package would choose other features of dependencies.
        cargo build --release "${@/#/--package=}" --message-format=json-render-diagnostics >"$scratch/messages" ||
            fail "the build failed"
        # Only cargo knows the folder: variables and configuration files set the target and the place of its files.
        local archive
        archive=$(grep -o '"[^"]*/libbolmo\.a"' "$scratch/messages" | tail -n 1 | tr -d '"')
        out=${archive%/*}
        [ -e "$out/libbolmo.a" ] || fail "cargo doesn't say where it has put libbolmo.a"
        # The files of another target than the host's are in a folder of its name.
        local folder
        folder=$(basename "$(dirname "$out")")
        if [ -z "${CARGO_BUILD_TARGET-}" ] && rustc --print target-list | grep -qx -- "$folder"; then
            target=$folder
        fi
    fi
    rustc --print cfg --target "$target" >"$scratch/cfg" 2>"$scratch/log" ||
        fail "rustc doesn't know the target $target: $(cat "$scratch/log")"
    system=$(sed -n 's/^target_os="\(.*\)"/\1/p' "$scratch/cfg")
    pointer_bytes=$(($(sed -n 's/^target_pointer_width="\(.*\)"/\1/p' "$scratch/cfg") / 8))
    names "$system"
    list_library
    for file in "$built" libbolmo.a; do
        [ -e "$out/$file" ] || fail "$out has no $file for $target: build it first"
    done
    [ "$target" = "$host" ] || echo "installing for $target"
    if [ -n "${BOLMO_BUILT-}" ] || [ "$system" = linux ]; then
        # On Linux libbolmo.a needs what the standard library needs, and no more.
        rustc --target "$target" --crate-type staticlib --crate-name empty --print native-static-libs \
            -o "$scratch/empty.a" - </dev/null >"$scratch/log" 2>&1 || fail "rustc failed: $(cat "$scratch/log")"
    else
        cargo rustc --release -p bolmo-ffi --lib -- --print native-static-libs 2>&1 | tee "$scratch/log" >&2 ||
            fail "the build failed"
    fi
    # rustc names a library once for each crate that needs it.
    static_libs=$(sed -n 's/^note: native-static-libs: //p' "$scratch/log" | sed 's/-framework /-framework@/g' |
        tr -s ' ' '\n' | awk '!seen[$0]++' | tr '\n' ' ' | sed 's/ $//')
    [ -n "$static_libs" ] || fail "rustc didn't say what libbolmo.a needs"
}

# stripped FILE OPTION...: strips a file for the target, with a tool that knows it
stripped() {
    local file=$1 tool
    shift
    # The names that cross compilers of GNU and LLVM have.
    for tool in ${STRIP:-} $([ "$target" != "$host" ] || echo strip) "${target/-unknown-/-}-strip" llvm-strip \
        "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-objcopy"; do
        command -v "$tool" >/dev/null || continue
        case "$tool" in
        *rust-objcopy) "$tool" --strip-unneeded "$file" && return ;;
        *) "$tool" "$@" "$file" && return ;;
        esac
        fail "$tool cannot strip $(basename "$file") for $target: name a tool that can with STRIP"
    done
    echo "install: no tool strips files for $target here, $(basename "$file") stays as it is: name one with STRIP" >&2
}

# folder NAME: makes a folder, and notes those that were missing
folder() {
    local missing=$1
    while [ ! -d "$missing" ]; do
        case "$missing/" in "$DESTDIR$PREFIX/"*) made+=("${missing#"$DESTDIR"}") ;; *) break ;; esac
        missing=$(dirname "$missing")
    done
    mkdir -p "$1"
}

# place FILE NAME MODE: copies FILE to NAME
place() {
    folder "$(dirname "$2")"
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

# versioned NAME: links the shared library to NAME once more, from the objects in libbolmo.a, so that its symbols have
# the version BOLMO_N, with the number of the SONAME. rustc passes the linker a list of symbols without versions, beside
# which no list with versions is allowed. Fails where no C compiler links for the target.
versioned() {
    local variable linker
    variable=CARGO_TARGET_$(echo "$target" | tr 'a-z.-' 'A-Z__')_LINKER
    if [ "$target" = "$host" ]; then linker=${CC:-cc}; else linker=${!variable:-${target/-unknown-/-}-gcc}; fi
    command -v "$linker" >/dev/null || return 1
    sed -n 's/^BOLMO_API .*\(bolmo_[a-z0-9_]*\)(.*/\1/p' ffi/include/bolmo.h >"$scratch/functions"
    { echo "BOLMO_$so_version { global:"; sed 's/$/;/' "$scratch/functions"; echo 'local: *; };'; } >"$scratch/versions"
    # shellcheck disable=SC2086,SC2046 # lists of options
    "$linker" -shared -o "$1" $(sed 's/^/-Wl,-u,/' "$scratch/functions") "$out/libbolmo.a" \
        -Wl,--version-script="$scratch/versions" -Wl,--gc-sections -Wl,-soname,"$soname" \
        -Wl,-z,max-page-size=16384 -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed $static_libs >&2
}

install_library() {
    # The path from the library's folder to the prefix.
    up=$(echo "$LIBDIR" | sed 's|[^/][^/]*|..|g')

    case "$target" in
    *-linux-gnu*)
        versioned "$scratch/$shared" ||
            { echo "install: no C compiler for $target links here: the symbols of $shared have no version" >&2
              cp "$out/$built" "$scratch/$shared"; }
        ;;
    *) cp "$out/$built" "$scratch/$shared" ;;
    esac
    stripped "$scratch/$shared" "${strip_options[@]}"
    place ffi/include/bolmo.h "$include/bolmo.h" 644
    place ffi/include/bolmo.hpp "$include/bolmo.hpp" 644
    place "$scratch/$shared" "$lib/$shared" 755
    link "$shared" "$lib/$soname"
    link "$soname" "$lib/$plain"
    place "$out/libbolmo.a" "$lib/libbolmo.a" 644
    fill bolmo.pc.in "$lib/pkgconfig/bolmo.pc"
    fill bolmo-config.cmake.in "$lib/cmake/bolmo/bolmo-config.cmake"
    fill bolmo-config-version.cmake.in "$lib/cmake/bolmo/bolmo-config-version.cmake"
    place ffi/package/tsan.supp "$share/bolmo/tsan.supp" 644
    { cat "$made_file" 2>/dev/null || true; printf '%s\n' ${made[@]+"${made[@]}"}; } | sed '/^$/d' | sort -u \
        >"$scratch/folders"
    place "$scratch/folders" "$made_file" 644
    report "${library_files[@]}"
    echo "$shared has $(wc -c <"$lib/$shared" | tr -d ' ') bytes"
}

install_command() {
    local bolmo=${BOLMO_COMMAND:-$out/bolmo} file
    cp "$bolmo" "$scratch/bolmo"
    stripped "$scratch/bolmo"
    if ! "$bolmo" --version >/dev/null 2>&1; then
        local here=${BOLMO_HOST_COMMAND:-${CARGO_TARGET_DIR:-target}/release/bolmo}
        [ "$("$here" --version 2>/dev/null)" = "bolmo $version" ] ||
            fail "the command for $target doesn't run here, so its manual pages and completions can't be made: build \
the command for $host too, or name one with BOLMO_HOST_COMMAND; \`make install-lib\` needs none"
        bolmo=$here
    fi
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
    local file
    made=()
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    build "$@"
    case " $* " in *" bolmo-cli "*) install_command ;; esac
    install_library
}

uninstall_all() {
    local file folders=()
    # The libraries of another system may be installed.
    for system in linux macos; do
        names "$system"
        list_library
        command_files+=("${library_files[@]}")
    done
    if [ -e "$made_file" ]; then
        while IFS= read -r file; do folders+=("$file"); done < <(sort -r "$made_file")
    fi
    for file in "${command_files[@]}"; do
        if [ -e "$file" ] || [ -L "$file" ]; then
            rm -f "$file"
            echo "removed $file"
        fi
    done
    # The innermost first. Only names in PREFIX count, whatever the file says.
    for file in ${folders[@]+"${folders[@]}"}; do
        case "$file/" in *..* | "//"*) continue ;; "$PREFIX/"*) ;; *) continue ;; esac
        [ ! -d "$DESTDIR$file" ] || rmdir "$DESTDIR$file" 2>/dev/null ||
            echo "install: other files stay in $DESTDIR$file" >&2
    done
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
