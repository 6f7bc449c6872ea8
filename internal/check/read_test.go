package check

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/testenv"
)

// tool runs a command in the test's namespace.
func tool(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// errorsOf are the errors and warnings of a check.
func errorsOf(findings []Finding, name string) string {
	var out []string
	for _, f := range findings {
		if f.Check == name && f.Severity != OK {
			out = append(out, f.Seen)
		}
	}
	return strings.Join(out, "\n")
}

// Each thing that is broken for real is read, and said; nothing of it is said before.
func TestReadSeesWhatIsBroken(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, command, check, want string }{
		{"forwarding", "sysctl -qw net.ipv4.ip_forward=0", "sysctl", "net/ipv4/ip_forward is 0"},
		{"source check", "sysctl -qw net.ipv4.conf.all.rp_filter=1", "sysctl", "the source check of eth0 is strict"},
		{"MTU", "ip link set eth0 mtu 1400", "mtu", "hythe.vxlan has MTU 1450, which needs 1500 of eth0, and that has 1400"},
		{"underlay down", "ip link set far down", "mtu", "the underlay eth0 is down"},
		{"address gone", "ip address flush dev eth0", "mtu", "no interface has an address"},
		{"LAN in pod range", "ip address add 10.244.2.9/24 dev lo", "addresses", "overlaps the network 10.244.2.0/24 of lo"},
		{"route in pod range", "ip route add 10.244.0.0/16 dev eth0", "addresses", "overlaps the route to 10.244.0.0/16 by eth0"},
		{"VIP on lo", "ip address add 192.0.2.100/32 dev lo", "balancer", "the VIP 192.0.2.100 is on lo"},
		{"kube-proxy, nftables", "nft 'add table ip kube-proxy; add chain ip kube-proxy services'", "proxy", "ip kube-proxy services"},
		{"kube-proxy, iptables", "nft 'add table ip nat; add chain ip nat KUBE-SERVICES'", "proxy", "ip nat KUBE-SERVICES"},
		{"IPVS", "ip link add kube-ipvs0 type bridge", "proxy", "IPVS"},
		{"firewall", "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'", "firewall", "ip filter FORWARD drops forwarded packets"},
		{"flannel", "ip link add flannel.1 type vxlan id 1 dstport 8472", "cni", "links of flannel: flannel.1"},
		{"VNI", "ip link add other type vxlan id 72 dstport 4790", "cni", "other has the VNI of Hythe's overlay"},
		{"CNI file", "echo '{\"plugins\":[{\"type\":\"flannel\"}]}' > " + dir + "/05-flannel.conflist", "cni", "05-flannel.conflist (flannel) before"},
		{"CNI file, broken", "echo '{' > " + dir + "/20-x.conf", "cni", "20-x.conf cannot be read"},
		{"clone", "ip neighbour replace 192.0.2.12 lladdr 02:00:00:00:00:01 dev eth0 nud reachable", "neighbours", "192.0.2.12 on the LAN has the MAC address 02:00:00:00:00:01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			testenv.NetNS(t)
			tool(t, "ip link set lo up && ip link add eth0 address 02:00:00:00:00:01 mtu 1500 type veth peer name far && ip link set eth0 up && ip link set far up && "+
				"ip address add 192.0.2.11/24 dev eth0 && ip link add hythe.vxlan mtu 1450 type vxlan id 72 dstport 4789 && ip link set hythe.vxlan up && "+
				"sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.hythe/vxlan.rp_filter=2")
			options := Options{CNIDir: dir, Dirs: []string{filepath.Join(dir, "not", "yet")}, Cluster: Cluster{
				Known: true, Node: "node1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")},
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}, VIPs: []netip.Addr{netip.MustParseAddr("192.0.2.100")},
			}}
			write(t, filepath.Join(dir, "10-hythe.conflist"), `{"plugins":[{"type":"hythe-cni"}]}`)
			before := Read(t.Context(), options)
			if len(before.Unread) > 0 {
				t.Errorf("unread: %v", before.Unread)
			}
			for _, f := range Build(before) {
				if f.Severity == Error {
					t.Errorf("before: %+v", f)
				}
			}
			tool(t, c.command)
			if got := errorsOf(Build(Read(t.Context(), options)), c.check); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for _, name := range []string{"05-flannel.conflist", "20-x.conf"} {
				_ = os.Remove(filepath.Join(dir, name))
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is tried leaves nothing in the namespace, and works on a machine that runs the other tests.
func TestFeaturesLeaveNothing(t *testing.T) {
	testenv.NetNS(t)
	f := Read(t.Context(), Options{})
	for _, name := range []string{FeatureDatapath, FeatureHash, FeatureVXLAN, FeatureVeth, FeatureConntrack} {
		if why, tried := f.Features[name]; !tried || why != "" {
			t.Errorf("%s: tried=%t %s", name, tried, why)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 1 {
		t.Errorf("%d links are left", len(links))
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || len(out) > 0 {
		t.Errorf("tables are left: %s (%v)", out, err)
	}
}

// Packets of real size are sent over a link that carries only short ones.
func TestSendFindsShortMTU(t *testing.T) {
	far := testenv.NewNetNS(t)
	testenv.NetNS(t)
	tool(t, "ip link add eth0 mtu 1500 type veth peer name far mtu 1500 && ip link set eth0 up && ip address add 192.0.2.11/24 dev eth0")
	link, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(link, int(far)); err != nil {
		t.Fatal(err)
	}
	testenv.InNetNS(t, far, func() { tool(t, "ip link set far up && ip address add 192.0.2.12/24 dev far") })
	peer := netip.MustParseAddr("192.0.2.12")
	probe := func() []string {
		var out []string
		for _, p := range Send(t.Context(), []Probe{
			{Over: "underlay", To: peer, Size: 100}, {Over: "underlay", To: peer, Size: 1500}, {Over: "underlay", To: peer, Size: 1501},
			{Over: "underlay", To: peer.Next(), Size: 100},
		}) {
			result := p.Error
			if result == "" {
				result = "answered"
			}
			out = append(out, result)
		}
		return out
	}
	silence, long := "no answer within 700ms", "longer than the MTU of the interface here"
	if got, want := probe(), []string{"answered", "answered", long, silence}; !slices.Equal(got, want) {
		t.Errorf("MTU 1500: got %q, want %q", got, want)
	}
	testenv.InNetNS(t, far, func() { tool(t, "ip link set far mtu 1400") })
	if got, want := probe(), []string{"answered", silence, long, silence}; !slices.Equal(got, want) {
		t.Errorf("MTU 1400 there: got %q, want %q", got, want)
	}
}
