#!/usr/bin/env bash
# Builds kube-apiserver and etcd for the tests, unless this version is there already: see kubernetes.sh.
#
#   apiserver.sh build    build what is missing
#   apiserver.sh path     print the folder of the binaries
set -euo pipefail

kubernetes=$(dirname "$0")/kubernetes.sh
case ${1:-} in
build) exec "$kubernetes" build etcd kube-apiserver ;;
path) exec "$kubernetes" path ;;
*)
	echo "usage: apiserver.sh build | path" >&2
	exit 2
	;;
esac
