#!/bin/bash
# Unpacks Debian 13's Swift, with the C library, compiler files and software Vulkan driver that go with it, into a
# folder; the system is not changed. For Debian systems whose own packages have no Swift 6.
#
#   scripts/swift-toolchain.sh FOLDER    makes FOLDER if it does not exist (500 MB to download, 2.1 GB on disk);
#                                        FOLDER/run COMMAND ARGUMENT… then runs a command, such as `swift build`
#
# Commands see the tree in place of the system, with the current folder, the folders that SWIFT_FOLDERS names (divided
# by colons), /dev and /proc at their usual paths. That takes a mount namespace: root, or user namespaces.
# The system's mirror must have trixie.
set -euo pipefail

suite=trixie
packages=(swiftlang libc6-dev libstdc++-14-dev mesa-vulkan-drivers libvulkan1 base-files coreutils dash ca-certificates)
target=$(realpath -m "$1")
# Both, because scripts/setup.sh writes a `run` for the system's own Swift.
[ -x "$target/run" ] && [ -d "$target/root" ] && exit

fail() { echo "swift-toolchain: Swift cannot be had: $*" >&2; exit 1; }
[ "$(uname)" = Linux ] || fail "please install Swift 6 from https://www.swift.org/install"
for program in apt-get dpkg-deb unshare; do
    command -v "$program" >/dev/null || fail "there is no $program; install Swift 6 from https://www.swift.org/install"
done
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 2>/dev/null |
    awk '$2 == "Debian" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || fail "apt has no Debian mirror"
namespace=(--mount)
[ "$(id -u)" = 0 ] || namespace+=(--user --map-root-user)
unshare "${namespace[@]}" true 2>/dev/null || fail "this system lets nobody mount folders in a namespace of their own"

mkdir -p "$target"
work=$(mktemp -d "$target/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# apt with lists, state and configuration of its own, so that the system's stay as they are.
mkdir -p "$work"/{lists,archives}/partial "$work/root" "$work/dpkg"
touch "$work/dpkg/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
own_apt() {
    apt-get -qq -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/dpkg/status" \
        -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root \
        -o Debug::NoLocking=1 -o APT::Install-Recommends=0 "$@"
}
echo "swift-toolchain: fetching Swift of $suite from $mirror, for this folder only" >&2
own_apt update >"$work/log" 2>&1 || fail "apt-get update failed for $suite: $(tail -n 1 "$work/log")"
own_apt --download-only -y install "${packages[@]}" >"$work/log" 2>&1 ||
    fail "the packages of $suite could not be fetched: $(tail -n 1 "$work/log")"

# The links that make /bin, /lib and so on folders of /usr come first; then all others, a few at a time. Left out are
# debuggers, editors' servers and the static standard library.
unpack() {
    dpkg-deb --fsys-tarfile "$2" | tar -x -C "$1" --keep-directory-symlink --no-same-owner \
        --exclude=./usr/share/{doc,man,locale,lintian,info}/'*' \
        --exclude=./usr/libexec/swift/bin/{lldb-server,lldb,lldb-dap,clangd,sourcekit-lsp,swift-format} \
        --exclude='./usr/libexec/swift/lib/liblldb*' --exclude='./usr/libexec/swift/lib/swift_static*'
}
export -f unpack
unpack "$work/root" "$(echo "$work"/archives/base-files_*.deb)"
find "$work/archives" -name '*.deb' ! -name 'base-files_*' -printf '%s %p\n' | sort -rn | cut -d' ' -f2- |
    xargs -P "$(nproc)" -n 1 bash -c 'set -euo pipefail; unpack "$0" "$1"' "$work/root"
mkdir -p "$work/root/tmp" "$work/root/root" "$work/root/proc" "$work/root/dev" "$work/root/etc"
chmod 1777 "$work/root/tmp"
echo 'root:x:0:0:root:/root:/bin/sh' >"$work/root/etc/passwd"

cat >"$work/run" <<'END'
#!/bin/bash
set -euo pipefail
here=$(dirname "$(realpath "$0")")
namespace=(--mount)
[ "$(id -u)" = 0 ] || namespace+=(--user --map-root-user)
exec unshare "${namespace[@]}" bash -c '
    set -euo pipefail
    root=$1 folder=$PWD
    shift
    mount --make-rprivate /
    for mounted in /proc /dev; do mount --rbind "$mounted" "$root$mounted"; done
    IFS=:
    for shown in "$folder" ${SWIFT_FOLDERS-}; do
        shown=$(realpath "$shown")
        mkdir -p "$root$shown"
        mount --bind "$shown" "$root$shown"
    done
    # What the system preloads is not in the tree.
    unset SWIFT_FOLDERS LD_PRELOAD
    export HOME=/root PATH=/usr/libexec/swift/bin:/usr/bin:/usr/sbin LC_ALL=C.UTF-8
    exec chroot "$root" /usr/bin/env -C "$folder" "$@"
' sh "$here/root" "$@"
END
chmod +x "$work/run"
rm -rf "$target/root"
mv "$work/root" "$target/root"
mv "$work/run" "$target/run"
"$target/run" swift --version >"$work/log" 2>&1 || {
    rm "$target/run"
    fail "it does not run: $(tail -n 1 "$work/log")"
}
