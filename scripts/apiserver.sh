#!/usr/bin/env bash
# Builds kube-apiserver and etcd for the tests, unless this version is there already. The module with the versions is
# conformance/apiserver. The first build takes some minutes and 3 GB of build cache.
#
#   apiserver.sh build    build what is missing
#   apiserver.sh path     print the folder of the binaries
set -euo pipefail

cd "$(dirname "$0")/../conformance/apiserver"
dir=${XDG_CACHE_HOME:-$HOME/.cache}/hythe/bin
go=${GO:-go}

# version prints the version of a module that go.mod asks for.
version() {
	"$go" list -m -f '{{.Version}}' "$1"
}

# build NAME VERSION PACKAGE puts NAME into the folder, with its version in a file beside it.
build() {
	local name=$1 version=$2 package=$3 work
	if [[ -x $dir/$name && $(cat "$dir/$name.version" 2>/dev/null) == "$version" ]]; then
		return
	fi
	echo "Building $name $version (some minutes the first time)" >&2
	work=$(mktemp -d "$dir/.build-XXXXXX")
	# shellcheck disable=SC2064 # the folder of now is meant
	trap "rm -rf '$work'" RETURN
	CGO_ENABLED=0 nice -n 10 "$go" build -v -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" \
		-o "$work/$name" "$package" 2>&1 | awk 'NR % 200 == 0 { print "  " NR " packages" } /^#|\.go:|^go: [^d]/ { print }' >&2
	mv "$work/$name" "$dir/$name"
	echo "$version" >"$dir/$name.version"
}

case ${1:-} in
build)
	mkdir -p "$dir"
	build etcd "$(version go.etcd.io/etcd/server/v3)" ./etcd
	build kube-apiserver "$(version k8s.io/kubernetes)" k8s.io/kubernetes/cmd/kube-apiserver
	;;
path)
	echo "$dir"
	;;
*)
	echo "usage: apiserver.sh build | path" >&2
	exit 2
	;;
esac
