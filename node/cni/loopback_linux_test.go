package cni_test

import (
	"context"
	"net"
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
