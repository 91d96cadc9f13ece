#!/usr/bin/env bash
# A Debian kernel and busybox for the guests of the tests, from Debian's packages; unpacked, never installed.
#
#   fetch.sh DIR [SUITE [KERNEL]]    DIR/vmlinuz, DIR/release, DIR/modules/*.ko[.xz], DIR/busybox
#
# Without SUITE the machine's own packages are taken; with it (trixie, sid) that suite of the same mirror. KERNEL is the package that depends
# on the kernel's (default: linux-image-cloud-amd64). What is there already is not fetched again.
set -euo pipefail
dir=$(realpath -m "${1:?usage: fetch.sh DIR [SUITE [KERNEL]]}")
suite=${2:-}
kernel=${3:-linux-image-cloud-amd64}
[ ! -e "$dir/ready" ] || exit 0
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
[ ! -e "$dir/ready" ] || exit 0

work=$(mktemp -d "$dir/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
# apt may run as root here, and its own user cannot write into the folder.
apt=(-oAPT::Sandbox::User=root)
if [ -n "$suite" ]; then
  mkdir -p "$work"/{lists/partial,archives/partial}
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/*$') ||
    { echo "fetch: apt's sources name no Debian mirror, which $suite is taken from" >&2; exit 1; }
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
  apt+=(-oDir::Etc::sourcelist="$work/sources.list" -oDir::Etc::sourceparts=/dev/null
        -oDir::State::Lists="$work/lists" -oDir::Cache::archives="$work/archives" -oDir::Cache::pkgcache= -oDir::Cache::srcpkgcache=)
  apt-get "${apt[@]}" update -qq
fi

# apt-cache fails when there is no such package, and then there is no output.
image() { { apt-cache "${apt[@]}" depends "$kernel" 2>/dev/null || true; } | awk '/Depends: linux-image/ { print $2; exit }'; }
package=$(image)
if [ -z "$package" ]; then
  apt-get update -qq
  package=$(image)
fi
if [ -z "$package" ]; then
  echo "fetch: $kernel names no kernel in the lists of apt${suite:+ for $suite}; the guests of the tests are Debian's, so a Debian mirror is needed" >&2
  exit 1
fi
packages=("$package" busybox-static)
# Since trixie the modules and the kernel's file are packages of their own.
binary=${package/linux-image-/linux-binary-}
for extra in "$binary" "${package/linux-image-/linux-modules-}"; do
  if [ "$extra" != "$package" ] && apt-cache "${apt[@]}" show "$extra" >/dev/null 2>&1; then packages+=("$extra"); fi
done
fetch() { (cd "$work" && apt-get "${apt[@]}" download -qq "${packages[@]}"); }
# A list of packages that is older than the mirror names files that are gone.
fetch || { [ -z "$suite" ] && apt-get update -qq && fetch; }
for deb in "$work"/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work" --wildcards --wildcards-match-slash \
    './boot/vmlinu*' './lib/modules/*virtio*' './usr/lib/modules/*virtio*' './usr/lib/modules/*/vmlinu*' \
    './bin/busybox' './usr/bin/busybox' 2>/dev/null || true
done
mkdir -p "$dir/modules"
find "$work" -name 'virtio*.ko*' -exec cp {} "$dir/modules/" \;
cp "$(find "$work" -name busybox -type f | head -n1)" "$dir/busybox"
vmlinuz=$(find "$work" -name 'vmlinu*' -type f | head -n1)
cp "$vmlinuz" "$dir/vmlinuz"
basename "$package" | sed 's/^linux-image-//' >"$dir/release"
touch "$dir/ready"
