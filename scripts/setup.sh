#!/usr/bin/env bash
# Installs the Debian packages that tests and demo use, if one of their commands is missing.
#
#   setup.sh            those for tests and demo
#   setup.sh cluster    those for the real cluster of conformance/rig
#   setup.sh bench      those that the gateway is measured beside
set -euo pipefail

# command or file:package
needs=(ip:iproute2 nft:nftables tcpdump:tcpdump arping:iputils-arping ping:iputils-ping curl:curl h2load:nghttp2-client
	conntrack:conntrack gcc:gcc /usr/include/stdio.h:libc6-dev git:git)

if [[ ${1:-} == cluster ]]; then
	# The last of them go into the image that Kubernetes' own tests use.
	needs=(containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins gcc:gcc /usr/include/stdio.h:libc6-dev strip:binutils
		busybox:busybox-static dig:bind9-dnsutils nc:netcat-openbsd iperf:iperf curl:curl ss:iproute2 ipcs:util-linux wget:wget)
fi

if [[ ${1:-} == bench ]]; then
	needs=(nginx:nginx haproxy:haproxy h2load:nghttp2-client ip:iproute2)
fi

missing=()
for need in "${needs[@]}"; do
	[[ $need == /* && -e ${need%%:*} ]] || PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
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
# The benchmark starts them itself, with a configuration of its own.
if [[ ${1:-} == bench && -d /run/systemd/system ]]; then
	systemctl disable --now nginx haproxy >/dev/null 2>&1 || true
fi
# The rig runs a containerd for each node; one of the machine's own is not wanted.
if [[ " ${missing[*]} " == *" containerd "* && -d /run/systemd/system ]]; then
	systemctl disable --now containerd >/dev/null 2>&1 || true
fi
