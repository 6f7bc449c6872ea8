#!/usr/bin/env bash
# Fetches and unpacks Debian's libc6 for one architecture and prints the folder, in which root/ holds the package's files, and
# version and sha256 what was taken. It uses apt with lists of its own, so neither root nor a foreign architecture is
# needed, and the machine's apt and dpkg stay as they are.
#
#   glibc.sh amd64|arm64    the version of glibc.lock; if the mirror has it no more, the current one (not with IMAGES_LOCKED=1)
#   glibc.sh update         write what the mirror has now into glibc.lock
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
lock=$here/glibc.lock
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hythe/images
mkdir -p "$cache"
work=$(mktemp -d "$cache/.apt-XXXXXX")
trap 'rm -rf "$work"' EXIT

# private ARCH COMMAND... runs apt-get with lists of its own, for Debian's own archive only.
private() {
	local arch=$1
	shift
	apt-get -qq -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
		-o Dir::Etc::sourcelist="$work/none" -o Dir::Etc::sourceparts="$work/sources" \
		-o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o APT::Sandbox::User=root \
		-o Acquire::Languages=none "$@" >&2
}

# download ARCH [VERSION] puts the .deb into $work.
download() {
	local arch=$1 version=${2:-}
	mkdir -p "$work"/{state/lists/partial,cache/archives/partial,sources}
	touch "$work/status" "$work/none"
	if [[ -z $(ls "$work/sources") ]]; then
		find /etc/apt/sources.list /etc/apt/sources.list.d -type f \( -name '*.list' -o -name '*.sources' \) 2>/dev/null |
			while read -r file; do
				if grep -qE 'debian-archive|/debian' "$file"; then
					cp "$file" "$work/sources/"
				fi
			done || true
	fi
	[[ -e $work/updated-$arch ]] || private "$arch" update
	touch "$work/updated-$arch"
	(cd "$work" && private "$arch" download "libc6${version:+=$version}")
}

# field ARCH N prints a field of the lock's line.
field() {
	awk -v arch="$1" -v n="$2" '$1 == arch { print $n }' "$lock"
}

# unpack ARCH DEB makes the folder of a package, and prints it.
unpack() {
	local arch=$1 deb=$2 version hash dir
	version=$(dpkg-deb -f "$deb" Version)
	hash=$(sha256sum "$deb" | cut -d ' ' -f 1)
	dir=$cache/libc6-$arch-$hash
	mkdir -p "$work/root-$arch"
	dpkg-deb -x "$deb" "$work/root-$arch/root"
	echo "$version" >"$work/root-$arch/version"
	echo "$hash" >"$work/root-$arch/sha256"
	rm -rf "$dir"
	mv "$work/root-$arch" "$dir"
	echo "$dir"
}

update() {
	grep '^#' "$lock" >"$work/lock"
	for arch in amd64 arm64; do
		download "$arch"
		deb=$(ls "$work"/libc6_*_"$arch".deb)
		echo "$arch $(dpkg-deb -f "$deb" Version) $(sha256sum "$deb" | cut -d ' ' -f 1)" >>"$work/lock"
	done
	cat "$work/lock" >"$lock"
}

fetch() {
	local arch=$1 version hash deb
	version=$(field "$arch" 2)
	hash=$(field "$arch" 3)
	if [[ -z $hash ]]; then
		echo "glibc.sh: glibc.lock has no libc6 for $arch" >&2
		exit 1
	fi
	if [[ -e $cache/libc6-$arch-$hash/sha256 ]]; then
		echo "$cache/libc6-$arch-$hash"
		return
	fi
	echo "Downloading libc6 $version for $arch (2 MB)" >&2
	if ! download "$arch" "$version"; then
		if [[ ${IMAGES_LOCKED:-} == 1 ]]; then
			echo "glibc.sh: the mirror has no libc6 $version for $arch any more: run scripts/images/glibc.sh update" >&2
			exit 1
		fi
		download "$arch"
		deb=$(ls "$work"/libc6_*_"$arch".deb)
		echo "glibc.sh: the mirror has no libc6 $version for $arch any more; taking $(dpkg-deb -f "$deb" Version): the image has another digest" >&2
		unpack "$arch" "$deb"
		return
	fi
	deb=$(ls "$work"/libc6_*_"$arch".deb)
	if ! echo "$hash  $deb" | sha256sum --check --status; then
		echo "glibc.sh: libc6 $version for $arch is not the file that glibc.lock names" >&2
		exit 1
	fi
	unpack "$arch" "$deb"
}

case ${1:-} in
amd64 | arm64) fetch "$1" ;;
update) update ;;
*)
	echo "usage: glibc.sh amd64 | arm64 | update" >&2
	exit 2
	;;
esac
