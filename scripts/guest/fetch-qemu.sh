#!/usr/bin/env bash
# A newer QEMU than the machine's own, from the backports of its Debian release; unpacked, never installed.
#
#   fetch-qemu.sh DIR        DIR/qemu runs it
set -euo pipefail
dir=$(realpath -m "${1:?usage: fetch-qemu.sh DIR}")
[ ! -x "$dir/qemu" ] || exit 0
mkdir -p "$dir"/{lists/partial,archives/partial,debs}
. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/*$') ||
  { echo "fetch-qemu: apt's sources name no Debian mirror" >&2; exit 1; }
for suite in "$VERSION_CODENAME" "$VERSION_CODENAME-backports"; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$dir/sources.list"
apt=(-oAPT::Sandbox::User=root -oDir::Etc::sourcelist="$dir/sources.list" -oDir::Etc::sourceparts=/dev/null
     -oDir::State::Lists="$dir/lists" -oDir::Cache::archives="$dir/archives" -oDir::Cache::pkgcache= -oDir::Cache::srcpkgcache=)
apt-get "${apt[@]}" update -qq
(cd "$dir/debs" && apt-get "${apt[@]}" download -qq -t "$VERSION_CODENAME-backports" qemu-system-x86 qemu-system-common qemu-system-data seabios)
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done
# Its libraries are those of the machine, which has a QEMU of its own: nothing is fetched for it, but what is missing is named.
missing() { ldd "$dir/root/usr/bin/qemu-system-x86_64" | awk '/not found/ { print $1 }'; }
cp "$dir"/root/usr/share/seabios/*.bin "$dir/root/usr/share/qemu/" 2>/dev/null || true
rm -rf "$dir/debs" "$dir/lists" "$dir/archives"
if [ -n "$(missing)" ]; then echo "fetch-qemu: libraries are missing: $(missing | tr '\n' ' ')" >&2; exit 1; fi
printf '#!/bin/sh\nexec %s -L %s "$@"\n' "$dir/root/usr/bin/qemu-system-x86_64" "$dir/root/usr/share/qemu" >"$dir/qemu"
chmod +x "$dir/qemu"
