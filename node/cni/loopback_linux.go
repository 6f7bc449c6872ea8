package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"hythe.dev/hythe/node/kernel/link"
)

// LoopbackName is the plugin that container runtimes (containerd before 2.1) call for each pod besides the one of the
// configuration list. Packages of Kubernetes bring it; a bare machine has none, and no pod would start.
const LoopbackName = "loopback"

// installLoopback makes our plugin serve under that name too, where there is no other.
func installLoopback(binDir string) error {
	path := filepath.Join(binDir, LoopbackName)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if target, err := os.Readlink(path); err == nil && target != PluginName {
		return nil // somebody's, that leads nowhere
	}
	if err := os.Symlink(PluginName, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("install plugin %s: %w", LoopbackName, err)
	}
	return nil
}

// UninstallPlugin removes the plugin's binary, and what else serves by it. No pod can be detached by it any more.
func UninstallPlugin(binDir string) error {
	var errs []error
	loopback := filepath.Join(binDir, LoopbackName)
	if target, err := os.Readlink(loopback); err == nil && target == PluginName {
		errs = append(errs, os.Remove(loopback))
	}
	if err := os.Remove(filepath.Join(binDir, PluginName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove CNI plugin: %w", err)
	}
	return nil
}

// LoopbackFuncs are the commands of the plugin under the name LoopbackName: the interface lo of the pod is switched on.
func (p Plugin) LoopbackFuncs() skel.CNIFuncs {
	nothing := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{Add: p.addLoopback, Del: nothing, Check: nothing, GC: nothing, Status: nothing}
}

func (p Plugin) addLoopback(args *skel.CmdArgs) error {
	var conf types.NetConf
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("parse network configuration: %v", err), "")
	}
	if err := link.LoopbackUp(args.Netns); err != nil {
		return attachError(err)
	}
	first := 0
	r := &addResult{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{Name: "lo", Mac: "00:00:00:00:00:00", Sandbox: args.Netns}},
		IPs:        []*types100.IPConfig{{Interface: &first, Address: net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)}}},
	}
	return r.print(p.Stdout, conf.CNIVersion)
}
