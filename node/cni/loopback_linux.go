package cni

import (
	"bytes"
	"debug/buildinfo"
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

	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/node/kernel/link"
)

// LoopbackName is the plugin that container runtimes (containerd before 2.1) call for each pod besides the one of the
// configuration list. Packages of Kubernetes bring it; a bare machine has none, and no pod would start.
const LoopbackName = "loopback"

// pluginPackage is what the plugin's binary says of itself, in each version (debug/buildinfo).
const pluginPackage = "hythe.dev/hythe/cmd/hythe-cni"

// installLoopback makes our plugin serve under that name too, where there is no other. It is a copy: what is copied over
// a link would replace the plugin behind it.
func installLoopback(binDir string, binary []byte) (wrote bool, err error) {
	path := filepath.Join(binDir, LoopbackName)
	switch ours, err := ourLoopback(binDir, binary); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case !ours:
		return false, nil
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 { // replaced, not followed
		return true, atomicfile.Write(path, binary, 0o755)
	}
	return atomicfile.Keep(path, binary, 0o755)
}

// ourLoopback says whether the plugin of that name is ours: a link to our plugin or a copy of it, of any version. The
// error is fs.ErrNotExist where there is none.
func ourLoopback(binDir string, binary []byte) (bool, error) {
	path := filepath.Join(binDir, LoopbackName)
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		return target == PluginName, err
	}
	if !info.Mode().IsRegular() {
		return false, nil
	}
	is, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if len(is) > 0 && bytes.Equal(is, binary) {
		return true, nil
	}
	build, err := buildinfo.Read(bytes.NewReader(is))
	return err == nil && build.Path == pluginPackage, nil
}

// UninstallPlugin removes the plugin's binary, and what else serves by it. No pod can be detached by it any more.
func UninstallPlugin(binDir string) error {
	var errs []error
	plugin := filepath.Join(binDir, PluginName)
	binary, err := os.ReadFile(plugin)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	ours, err := ourLoopback(binDir, binary)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if ours {
		errs = append(errs, os.Remove(filepath.Join(binDir, LoopbackName)))
	}
	if err := os.Remove(plugin); err != nil && !errors.Is(err, fs.ErrNotExist) {
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
