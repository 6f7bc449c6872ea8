package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/golden"
)

// TestFiles compares all command lines, configuration files, cables and routes of a cluster with text.
func TestFiles(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, a *golden.Archive) {
		var count, servers int
		var flavour string
		if _, err := fmt.Sscanf(string(a.Data("cluster")), "%s %d nodes %d API servers", &flavour, &count, &servers); err != nil {
			t.Fatal(err)
		}
		c, err := New("/cluster", "/bin", flavour, count)
		if err != nil {
			t.Fatal(err)
		}
		c.TwoAPIServers, c.DualStack = servers == 2, strings.Contains(string(a.Data("cluster")), "dual stack")
		a.Want(t, "daemons", daemonText(c))
		a.Want(t, "topology", topologyText(c))
		cidrs := map[string][]netip.Prefix{
			"node1": {netip.MustParsePrefix("10.244.2.0/24")}, "node2": {netip.MustParsePrefix("10.244.0.0/24")}, // as it happens
		}
		if c.DualStack {
			cidrs["node1"] = append(cidrs["node1"], netip.MustParsePrefix("fd00:10:244:2::/64"))
		}
		var routes strings.Builder
		for _, r := range c.Routes(cidrs) {
			fmt.Fprintf(&routes, "%s: %s via %s\n", r.Namespace, r.To, r.Via)
		}
		a.Want(t, "routes", routes.String())
		a.Want(t, "kubelet.yaml", c.KubeletConfig(c.Nodes[0]))
		a.Want(t, "containerd.toml", ContainerdConfig())
		a.Want(t, "kubelet.kubeconfig", c.KubeconfigFile(c.NodeCertificate(c.Nodes[0])))
		a.Want(t, "bridge.conflist", BridgeConfig(cidrs["node1"]))
	})
}

func daemonText(c Cluster) string {
	var out strings.Builder
	all := c.ControlPlane()
	for _, n := range c.Nodes {
		all = append(all, c.NodeDaemons(n)...)
	}
	for _, d := range all {
		fmt.Fprintf(&out, "%s on %s\n  %s\n", d.ID(), d.Machine, strings.Join(d.Args, "\n    "))
	}
	return out.String()
}

func topologyText(c Cluster) string {
	var out strings.Builder
	plan := c.Topology()
	for _, n := range c.Nodes {
		of := c.NodeTopology(n)
		plan.Namespaces = append(plan.Namespaces, of.Namespaces...)
		plan.Cables = append(plan.Cables, of.Cables...)
	}
	for _, ns := range plan.Namespaces {
		fmt.Fprintf(&out, "namespace %s %s %v\n", ns.Name, ns.Bridge, ns.Sysctls)
	}
	for _, cable := range plan.Cables {
		fmt.Fprintf(&out, "cable %s/%s %s - %s/%s %s\n", cable.A.Namespace, cable.A.Interface, cable.A.Address,
			cable.B.Namespace, cable.B.Interface, cable.B.Address)
	}
	for _, a := range append(c.Addresses(), c.NodeAddresses(c.Nodes[0])...) {
		fmt.Fprintf(&out, "address %s/%s %s via %s\n", a.Namespace, a.Interface, a.Address, a.Gateway)
	}
	return out.String()
}

func TestBridgeConfigIsJSON(t *testing.T) {
	if err := json.Unmarshal([]byte(BridgeConfig([]netip.Prefix{podCIDR, podCIDR6})), new(any)); err != nil {
		t.Error(err)
	}
}

func TestNextNode(t *testing.T) {
	c, err := New("", "", Hythe, 3)
	if err != nil {
		t.Fatal(err)
	}
	c.Nodes = append(c.Nodes[:1], c.Nodes[2]) // node2 was removed
	if n, ok := c.NextNode(); !ok || n.Name != "node2" || n.Address.String() != "203.0.113.102" {
		t.Errorf("next node %v %v, want node2 at its old address", n, ok)
	}
	full, err := New("", "", Hythe, MaxNodes)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := full.NextNode(); ok {
		t.Errorf("a full cluster has room for %v", n)
	}
}

func TestReaddressNode(t *testing.T) {
	c, err := New("", "", Hythe, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"203.0.113.10", "203.0.113.126", "203.0.113.100", "203.0.113.99", "203.0.113.101", "203.0.113.102", "203.0.113.103", "192.0.2.1", "::1"} {
		if err := c.ReaddressNode("node1", netip.MustParseAddr(address)); err == nil {
			t.Errorf("node1 gets %s", address)
		}
	}
	for _, address := range []string{"203.0.113.111", "203.0.113.101"} { // and back
		if err := c.ReaddressNode("node1", netip.MustParseAddr(address)); err != nil {
			t.Error(err)
		}
		if n, _ := c.Node("node1"); n.Address.String() != address {
			t.Errorf("node1 has %s, want %s", n.Address, address)
		}
	}
	if err := c.ReaddressNode("node3", netip.MustParseAddr("203.0.113.111")); err == nil {
		t.Error("a node that is not there gets an address")
	}
}

func TestZones(t *testing.T) {
	c, err := New("", "", Hythe, MaxNodes)
	if err != nil {
		t.Fatal(err)
	}
	zones := ""
	for _, n := range c.Nodes {
		zones += n.Zone()
	}
	if zones != "ababcc" {
		t.Errorf("zones %s, want ababcc", zones)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		flavour string
		nodes   int
	}{{"other", 3}, {Hythe, 0}, {Hythe, MaxNodes + 1}} {
		if _, err := New("", "", c.flavour, c.nodes); err == nil {
			t.Errorf("flavour %q with %d nodes is taken", c.flavour, c.nodes)
		}
	}
}

// TestAddressesAreFree says that no machine has an address that Hythe may give to a Service.
func TestAddressesAreFree(t *testing.T) {
	first, last := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.59") // values-*.yaml
	c, err := New("", "", Hythe, MaxNodes)
	if err != nil {
		t.Fatal(err)
	}
	taken := []netip.Addr{routerInside.Addr(), hostAddress.Addr(), control.Addr(), control2.Addr()}
	for _, n := range c.Nodes {
		taken = append(taken, n.Address)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range taken {
		if !lan.Contains(a) || seen[a] || a.Compare(first) >= 0 && a.Compare(last) <= 0 {
			t.Errorf("%s is not of the LAN, or not free", a)
		}
		seen[a] = true
	}
}

func TestPathsAreInDir(t *testing.T) {
	c, err := New("/cluster", "/bin", Guest, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(c.ControlPlane(), c.NodeDaemons(c.Nodes[0])...) {
		for _, arg := range d.Args[1:] {
			if _, value, ok := strings.Cut(arg, "=/"); ok && !strings.HasPrefix(path.Clean("/"+value), "/cluster/") {
				t.Errorf("%s: %s is outside of the cluster's folder", d.ID(), arg)
			}
		}
	}
}

// TestOwns says that a namespace of somebody else, whose processes "down" would kill, is not the rig's.
func TestOwns(t *testing.T) {
	for name, want := range map[string]bool{
		"hc-lan": true, "hc-router": true, "hc-client": true, "hc-control": true, "hc-node1": true, "hc-node6": true,
		"hc-": false, "hc-node": false, "hc-node0": false, "hc-node7": false, "hc-node01": false, "hc-host": false, "hc-1": false, "lan": false, "node1": false,
	} {
		if got := Owns(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
