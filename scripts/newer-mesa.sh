#!/bin/bash
# Unpacks the software Vulkan driver of Debian 13's backports into a folder; the system is not changed. That driver has
# cooperative matrices, which Debian 12's lacks.
#
#   scripts/newer-mesa.sh FOLDER     makes FOLDER if it does not exist; FOLDER/run PROGRAM ARGUMENT… then runs a program
#                                    with that driver
#
# Needs Debian with apt. The system's mirror must have trixie and trixie-backports.
set -euo pipefail

suite=trixie
target=$(realpath -m "$1")
[ -x "$target/run" ] && exit

say() { echo "newer-mesa: $*" >&2; }
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 2>/dev/null |
    awk '$2 == "Debian" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || { say "the driver cannot be fetched: apt has no Debian mirror"; exit 1; }
machine=$(uname -m)-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# apt with lists, state and configuration of its own, so that the system's stay as they are.
mkdir -p "$work"/{lists,archives}/partial "$work/root" "$work/dpkg"
touch "$work/dpkg/status"
for name in "$suite" "$suite-backports"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $name main"
done > "$work/sources.list"
own_apt() {
    apt-get -qq -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/dpkg/status" \
        -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" -o Dir::Etc::sourcelist="$work/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root \
        -o Debug::NoLocking=1 -o APT::Install-Recommends=0 "$@"
}
say "fetching mesa-vulkan-drivers of $suite-backports from $mirror"
own_apt update >/dev/null
own_apt -t "$suite-backports" --download-only -y install mesa-vulkan-drivers libvulkan1 libc6 >/dev/null
for package in "$work"/archives/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done

# The libraries that the driver and the loader need, with their C library: the system's may be older.
libraries=$work/root/usr/lib/$machine
mkdir -p "$work/made/lib"
linker=$(find "$work/root/usr" -name 'ld-linux-*.so.*' -print -quit)
cp -L "$linker" "$work/made/lib/linker"
for library in libvulkan_lvp.so libvulkan.so.1; do
    cp -L "$libraries/$library" "$work/made/lib/"
    "$linker" --library-path "$libraries" --list "$libraries/$library" |
        awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | xargs -r cp -Lu -t "$work/made/lib"
done
# Libraries that Rust programs link to.
for library in libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libgcc_s.so.1; do
    [ ! -e "$libraries/$library" ] || cp -Lu "$libraries/$library" "$work/made/lib/"
done
icd=$(find "$work/root/usr/share/vulkan/icd.d" -name 'lvp_icd*.json' -print -quit)
sed "s#\"library_path\": *\"[^\"]*\"#\"library_path\": \"$target/lib/libvulkan_lvp.so\"#" "$icd" > "$work/made/lvp.json"
cat > "$work/made/run" <<END
#!/bin/sh
export VK_DRIVER_FILES='$target/lvp.json' WGPU_BACKEND=vulkan NODEVICE_SELECT=1
exec '$target/lib/linker' --argv0 "\$1" --library-path '$target/lib' "\$@"
END
chmod +x "$work/made/run"
mkdir -p "$(dirname "$target")"
rm -rf "$target"
mv "$work/made" "$target"
