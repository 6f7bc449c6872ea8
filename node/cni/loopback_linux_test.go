package cni_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/cni"
)

// TestLoopback calls the plugin as containerd 1.6 does for each pod, before the configuration list of the network.
func TestLoopback(t *testing.T) {
	l := newLab(t, 1)
	node := l.nodes[0]
	list, err := libcni.ConfListFromBytes([]byte(`{"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}`))
	must(t, err)
	ns := testenv.NamedNetNS(t, "ho-lo")
	conf := &libcni.RuntimeConf{ContainerID: "lo", NetNS: "/run/netns/ho-lo", IfName: "lo"}
	must(t, node.cni(t, func(c *libcni.CNIConfig) error {
		out, err := c.AddNetworkList(context.Background(), list, conf)
		if err != nil {
			return err
		}
		result, err := types100.NewResultFromResult(out)
		if err != nil || len(result.Interfaces) != 1 || result.Interfaces[0].Name != "lo" || result.Interfaces[0].Sandbox != conf.NetNS {
			t.Errorf("ADD: %v, error %v", result, err)
		}
		return nil
	}))
	testenv.InNetNS(t, ns, func() {
		if linkByName(t, "lo").Attrs().Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		addresses, err := netlink.AddrList(linkByName(t, "lo"), netlink.FAMILY_V4)
		if err != nil || len(addresses) != 1 {
			t.Errorf("lo has %v, error %v", addresses, err)
		}
	})
	must(t, node.cni(t, func(c *libcni.CNIConfig) error { return c.DelNetworkList(context.Background(), list, conf) }))
}

// TestLoopbackOfOthers: one that is there stays, also when Hythe goes.
func TestLoopbackOfOthers(t *testing.T) {
	l := newLab(t, 1)
	o := l.nodes[0].options
	path := filepath.Join(o.BinDir, cni.LoopbackName)
	must(t, cni.UninstallPlugin(o.BinDir))
	if _, err := os.Lstat(path); err == nil {
		t.Error("ours stays after UninstallPlugin")
	}
	must(t, os.WriteFile(path, []byte("others"), 0o755))
	must(t, cni.Install(o))
	must(t, cni.UninstallPlugin(o.BinDir))
	if data, err := os.ReadFile(path); err != nil || string(data) != "others" {
		t.Errorf("it is %q, error %v", data, err)
	}
}

// TestLoopbackIsCopy: what is written to it does not reach the plugin, a new version replaces ours, also a link that an
// older one made, and what others put in its place is theirs.
func TestLoopbackIsCopy(t *testing.T) {
	dir := t.TempDir()
	sub := func(s string) string { return filepath.Join(dir, s) }
	o := cni.InstallOptions{Plugin: buildPlugin(t), BinDir: sub("bin"), ConfDir: sub("conf"), RunDir: sub("run"), DataDir: sub("data"),
		Config: cni.Config{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, MTU: 1450}}
	plugin, loopback := sub("bin/"+cni.PluginName), sub("bin/"+cni.LoopbackName)
	binary, err := os.ReadFile(o.Plugin)
	must(t, err)
	want := func(path string, want []byte) {
		t.Helper()
		if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, want) {
			t.Errorf("%s has %d bytes, error %v, want %d", path, len(data), err, len(want))
		}
	}
	must(t, cni.Install(o))
	must(t, os.Remove(loopback))
	must(t, os.Symlink(cni.PluginName, loopback))
	must(t, cni.Install(o))
	must(t, os.WriteFile(loopback, []byte("others"), 0o755))
	want(plugin, binary)
	must(t, cni.Install(o))
	want(loopback, []byte("others"))

	must(t, os.Remove(loopback))
	must(t, cni.Install(o))
	next := append(bytes.Clone(binary), "another version"...)
	must(t, os.WriteFile(o.Plugin, next, 0o755))
	must(t, cni.Install(o))
	want(loopback, next)
	wrote, err := cni.Reinstall(o)
	if err != nil || len(wrote) > 0 {
		t.Errorf("it wrote %q again, error %v", wrote, err)
	}
	must(t, os.Remove(plugin)) // an uninstall that was interrupted
	must(t, cni.UninstallPlugin(o.BinDir))
	if _, err := os.Lstat(loopback); err == nil {
		t.Error("ours is left")
	}
}
