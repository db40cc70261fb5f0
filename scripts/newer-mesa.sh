#!/bin/bash
# Puts the software Vulkan driver of Debian 13's backports into a folder of its own, beside the system's, which stays as it is. It has
# what Debian 12's lacks, cooperative matrices above all.
#
#   scripts/newer-mesa.sh FOLDER     makes FOLDER, unless it is there; then FOLDER/run PROGRAM ARGUMENT… runs a program with that driver
#
# Needs Debian with apt, and a mirror that has trixie and trixie-backports: that which the system uses.
set -euo pipefail

suite=trixie
target=$(realpath -m "$1")
[ -x "$target/run" ] && exit

say() { echo "newer-mesa: $*" >&2; }
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 2>/dev/null | awk '$2 == "Debian" && $1 !~ /security/ { print $1; exit }')
[ -n "$mirror" ] || { say "this is not a Debian system with apt: cannot fetch the driver"; exit 1; }
machine=$(uname -m)-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# An apt of its own: nothing of the system's lists, state or configuration is touched.
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

# Only what the driver and the loader need, with their own C library: the system's may be older.
libraries=$work/root/usr/lib/$machine
mkdir -p "$work/made/lib"
linker=$(find "$work/root/usr" -name 'ld-linux-*.so.*' -print -quit)
cp -L "$linker" "$work/made/lib/linker"
for library in libvulkan_lvp.so libvulkan.so.1; do
    cp -L "$libraries/$library" "$work/made/lib/"
    "$linker" --library-path "$libraries" --list "$libraries/$library" |
        awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | xargs -r cp -Lu -t "$work/made/lib"
done
# What Rust programs link to.
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
