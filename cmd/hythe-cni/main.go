// Command hythe-cni is the CNI plugin of Hythe. The container runtime calls it; see package cni.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"hythe.dev/hythe/node/cni"
)

func main() {
	plugin := cni.Plugin{Stdout: os.Stdout, Stderr: os.Stderr, Now: cni.Now}
	skel.PluginMainFuncs(plugin.Funcs(), version.All, "CNI plugin hythe-cni")
}
