#!/usr/bin/env bash
# Builds what tests and the real cluster need of Kubernetes and its neighbours from source, unless this version is there
# already. Who wants a program that another is building waits for it. The versions stand in the modules
# conformance/kubernetes, conformance/coredns, conformance/helm and conformance/helm3. From an empty build cache all of it
# takes some ten minutes on two cores, and 4 GB.
#
#   kubernetes.sh build NAME...   build what is missing of: etcd kube-apiserver kube-controller-manager kube-scheduler
#                                 kubelet kube-proxy kubectl agnhost regression-issue-74839 e2e.test pause coredns helm helm3
#   kubernetes.sh path            print the folder of the binaries
set -euo pipefail

conformance=$(cd "$(dirname "$0")/../conformance" && pwd)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/hythe/bin
go=${GO:-go}

# version MODULE prints the version that the go.mod of this folder asks for.
version() {
	"$go" list -m -f '{{.Version}}' "$1"
}

# progress passes on what matters of the output of go build -v.
progress() {
	awk 'NR % 200 == 0 { print "  " NR " packages" } /^#|\.go:|^go: [^d]|rror/ { print }'
}

# compile NAME VERSION PACKAGE OUT makes the binary OUT.
compile() {
	local name=$1 version=$2 package=$3 out=$4
	local flags="-s -w -X k8s.io/component-base/version.gitVersion=$version"
	local -a command=("$go" build)
	case $name in
	helm3) # its releases say so too; without, it takes every cluster that it does not ask for one of version 1.20
		flags+=" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36"
		flags+=" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36"
		;;
	pause)
		gcc -Os -static -Wall "-DVERSION=$version" -o "$out" "$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c"
		strip "$out"
		return
		;;
	e2e.test) command=("$go" test -c) ;;
	esac
	CGO_ENABLED=0 nice -n 10 "${command[@]}" -v -trimpath -ldflags "$flags" \
		-o "$out" "$package" 2>&1 | progress >&2
}

# build NAME FOLDER MODULE PACKAGE puts NAME, of the version of MODULE, into the folder of the binaries, with its version
# in a file beside it. File 9 is the lock of this program.
build() {
	local name=$1 folder=$2 module=$3 package=$4 version work
	flock 9
	cd "$conformance/$folder"
	version=$(version "$module")
	if [[ -x $dir/$name && $(cat "$dir/$name.version" 2>/dev/null) == "$version" ]]; then
		return
	fi
	echo "Building $name $version (some minutes the first time)" >&2
	work=$(mktemp -d "$dir/.build-XXXXXX")
	# shellcheck disable=SC2064 # the folder of now is meant
	trap "rm -rf '$work'" RETURN
	compile "$name" "$version" "$package" "$work/$name"
	mv "$work/$name" "$dir/$name"
	if [[ $name == agnhost ]]; then # what its image holds besides
		install -m 644 "$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/agnhost/porter/localhost.crt" "$dir/agnhost.crt"
		install -m 644 "$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/agnhost/porter/localhost.key" "$dir/agnhost.key"
	fi
	echo "$version" >"$dir/$name.version"
}

# one builds NAME.
one() {
	local name=$1
	case $name in
	etcd) build etcd kubernetes go.etcd.io/etcd/server/v3 ./etcd ;;
	kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy)
		build "$name" kubernetes k8s.io/kubernetes "k8s.io/kubernetes/cmd/$name"
		;;
	kubectl) build kubectl kubernetes k8s.io/kubernetes ./kubectl ;;
	agnhost) build agnhost kubernetes k8s.io/kubernetes k8s.io/kubernetes/test/images/agnhost ;;
	regression-issue-74839) build "$name" kubernetes k8s.io/kubernetes "k8s.io/kubernetes/test/images/$name" ;;
	e2e.test) build e2e.test kubernetes k8s.io/kubernetes k8s.io/kubernetes/test/e2e ;;
	pause) build pause kubernetes k8s.io/kubernetes - ;;
	coredns) build coredns coredns github.com/coredns/coredns . ;;
	helm) build helm helm helm.sh/helm/v4 helm.sh/helm/v4/cmd/helm ;;
	helm3) build helm3 helm3 helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm ;;
	*)
		echo "kubernetes.sh: cannot build $name: it is not in the list" >&2
		exit 2
		;;
	esac
}

case ${1:-} in
build)
	shift
	mkdir -p "$dir"
	for name; do
		one "$name" 9>"$dir/.$name.lock"
	done
	;;
path)
	echo "$dir"
	;;
*)
	echo "usage: kubernetes.sh build NAME... | path" >&2
	exit 2
	;;
esac
