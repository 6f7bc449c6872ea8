#!/usr/bin/env bash
# Installs the Debian packages that tests and demo use, if one of their commands is missing.
set -euo pipefail

# command:package
needs=(ip:iproute2 nft:nftables tcpdump:tcpdump arping:iputils-arping ping:iputils-ping curl:curl h2load:nghttp2-client
	conntrack:conntrack gcc:gcc git:git)

missing=()
for need in "${needs[@]}"; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
done
if ((${#missing[@]} == 0)); then
	exit 0
fi
if ((EUID != 0)); then
	echo "setup.sh: needs root to install ${missing[*]}: run it with sudo" >&2
	exit 1
fi
echo "Installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
