// Command hythe-cni is the CNI plugin of Hythe. The container runtime calls it; see package cni.
package main

import (
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"hythe.dev/hythe/node/cni"
)

func main() {
	plugin := cni.Plugin{Stdout: os.Stdout, Stderr: os.Stderr, Now: cni.Now}
	functions := plugin.Funcs()
	if filepath.Base(os.Args[0]) == cni.LoopbackName {
		functions = plugin.LoopbackFuncs()
	}
	skel.PluginMainFuncs(functions, version.All, "CNI plugin hythe-cni")
}
