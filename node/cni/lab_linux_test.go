package cni_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/kernel/link"
)

// TestRoad sends packets between pods and nodes, and reads whom they came from.
func TestRoad(t *testing.T) {
	l := newLab(t, 3)
	pods := []pod{l.nodes[0].pod(t, "p0"), l.nodes[1].pod(t, "p1"), l.nodes[0].pod(t, "p0b")}
	for _, p := range pods {
		serveEcho(t, p.ns)
	}
	serveEcho(t, l.nodes[1].ns, l.nodes[1].address)
	overlay0 := netip.MustParseAddr("10.244.1.0")
	overlay2 := netip.MustParseAddr("10.244.3.0")
	for _, test := range []struct {
		name     string
		from     netns.NsHandle
		to, want netip.Addr
	}{
		{"pod to pod on another node", pods[0].ns, pods[1].addr, pods[0].addr},
		{"and back", pods[1].ns, pods[0].addr, pods[1].addr},
		{"pod to pod, IPv6", pods[0].ns, pods[1].addr6, pods[0].addr6},
		{"pod to pod on the same node", pods[0].ns, pods[2].addr, pods[0].addr},
		{"pod to pod on the same node, IPv6", pods[0].ns, pods[2].addr6, pods[0].addr6},
		{"pod to itself", pods[0].ns, pods[0].addr, pods[0].addr},
		{"pod to another node", pods[0].ns, l.nodes[1].address, pods[0].addr},
		{"pod to its own node", pods[1].ns, l.nodes[1].address, pods[1].addr},
		{"node to its pod", l.nodes[0].ns, pods[0].addr, l.nodes[0].address},
		{"node to a pod of another", l.nodes[0].ns, pods[1].addr, overlay0},
		{"third node to a pod", l.nodes[2].ns, pods[1].addr, overlay2},
	} {
		t.Run(test.name, func(t *testing.T) {
			if seen, err := ask(test.from, test.to, 100); err != nil || seen != test.want {
				t.Errorf("seen from %v, error %v; want %v", seen, err, test.want)
			}
		})
	}
	t.Run("MTU", func(t *testing.T) { testMTU(t, pods[0], pods[1]) })
	t.Run("spoofed source", func(t *testing.T) { testSpoof(t, pods[0], pods[1]) })
	t.Run("unused pod address", func(t *testing.T) { testUnused(t, pods[0]) })
	t.Run("check", func(t *testing.T) { testCheck(t, l.nodes[0], pods[0]) })
}

// testMTU sends the largest packets, with DF.
func testMTU(t *testing.T, from, to pod) {
	if _, err := ask(from.ns, to.addr, 1450-28); err != nil {
		t.Errorf("1450 bytes: %v", err)
	}
	if _, err := ask(from.ns, to.addr6, 1450-48); err != nil {
		t.Errorf("1450 bytes, IPv6: %v", err)
	}
	if _, err := ask(from.ns, to.addr, 1451-28); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("1451 bytes: %v, want EMSGSIZE", err)
	}
}

// testSpoof sends with an address that is not the pod's own.
func testSpoof(t *testing.T, from, to pod) {
	var stolen net.PacketConn
	testenv.InNetNS(t, to.ns, func() {
		var err error
		stolen, err = net.ListenPacket("udp4", ":8")
		must(t, err)
	})
	defer stolen.Close()
	testenv.InNetNS(t, from.ns, func() {
		eth0 := linkByName(t, "eth0")
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 1, 99), Mask: net.CIDRMask(32, 32)}}
		must(t, netlink.AddrAdd(eth0, a))
		defer func() { must(t, netlink.AddrDel(eth0, a)) }()
		for _, source := range []net.IP{a.IP, net.IP(from.addr.AsSlice())} {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: source}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addr, 8)))
			must(t, err)
			_, err = c.Write([]byte(source.String()))
			must(t, err)
			_ = c.Close()
		}
	})
	_ = stolen.SetReadDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 100)
	// The second, honest one is the first to arrive.
	n, _, err := stolen.ReadFrom(b)
	if err != nil || string(b[:n]) != from.addr.String() {
		t.Errorf("first to arrive: %q, error %v; want %s", b[:n], err, from.addr)
	}
}

// testUnused sends to an address that no pod has: the answer is an error at once, not silence.
func testUnused(t *testing.T, from pod) {
	_, err := ask(from.ns, netip.MustParseAddr("10.244.1.200"), 10)
	if !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("error %v, want EHOSTUNREACH", err)
	}
}

func testCheck(t *testing.T, node *labNode, p pod) {
	must(t, node.check(t, p.name, p.path))
	testenv.InNetNS(t, p.ns, func() { must(t, netlink.RouteDel(&netlink.Route{Gw: net.IPv4(169, 254, 1, 1)})) })
	if err := node.check(t, p.name, p.path); err == nil || !strings.Contains(err.Error(), "route 0.0.0.0/0") {
		t.Errorf("CHECK after the default route went: %v", err)
	}
	_, err := node.attach(t, p.name, p.path)
	must(t, err)
	must(t, node.check(t, p.name, p.path))
}

// TestSetTwice says that a second Set writes nothing.
func TestSetTwice(t *testing.T) {
	l := newLab(t, 3)
	for _, n := range l.nodes {
		before := n.links.Writes()
		must(t, n.links.Set(t.Context(), l.state(n)))
		if wrote := n.links.Writes() - before; wrote != 0 || before == 0 {
			t.Errorf("%s: %d writes, then %d; want some, then none", n.name, before, wrote)
		}
	}
}

// TestRepair breaks the overlay by hand in each way, and waits for it to be right again.
func TestRepair(t *testing.T) {
	l := newLab(t, 2)
	from, to := l.nodes[0].pod(t, "p0"), l.nodes[1].pod(t, "p1")
	serveEcho(t, to.ns)
	a := l.nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { must(t, a.links.Run(ctx)) })
	defer wg.Wait()
	defer cancel()
	road := func() error { _, err := ask(from.ns, to.addr, 1422); return err }
	must(t, road())
	_, peerRange, _ := net.ParseCIDR("10.244.2.0/24")
	for _, test := range []struct {
		name   string
		damage func(device netlink.Link)
	}{
		// First, while nothing else can wake Run.
		{"route deleted", func(netlink.Link) { must(t, netlink.RouteDel(&netlink.Route{Dst: peerRange})) }},
		{"link deleted", func(d netlink.Link) { must(t, netlink.LinkDel(d)) }},
		{"link down", func(d netlink.Link) { must(t, netlink.LinkSetDown(d)) }},
		{"MTU changed", func(d netlink.Link) { must(t, netlink.LinkSetMTU(d, 1000)) }},
		{"address deleted", func(d netlink.Link) {
			must(t, netlink.AddrDel(d, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 1, 0), Mask: net.CIDRMask(32, 32)}}))
		}},
		{"neighbours deleted", func(d netlink.Link) { deleteNeighbours(t, d, unix.AF_UNSPEC) }},
		{"forwarding entries deleted", func(d netlink.Link) { deleteNeighbours(t, d, unix.AF_BRIDGE) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Let the passes end that answer our own changes: only the damage may cause the next.
			time.Sleep(500 * time.Millisecond)
			testenv.InNetNS(t, a.ns, func() { test.damage(linkByName(t, link.OverlayName)) })
			before := a.links.Writes()
			took := eventually(t, 2*time.Second, func() error {
				if a.links.Writes() == before {
					return errors.New("nothing was repaired")
				}
				return road()
			})
			t.Logf("right again after %v", took.Round(time.Millisecond))
			must(t, a.links.Set(t.Context(), l.state(a)))
		})
	}
}

// TestNodeChanges gives a node another address, then another pod range, and takes a third node away: the others reach
// what is there now, and nothing is left of what was.
func TestNodeChanges(t *testing.T) {
	l := newLab(t, 3)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	from, to := a.pod(t, "p0"), b.pod(t, "p1")
	serveEcho(t, to.ns)
	setAll := func() {
		t.Helper()
		for _, n := range l.nodes {
			if l.snapshot.Nodes[n.name] != nil {
				must(t, n.links.Set(t.Context(), l.state(n)))
			}
		}
	}
	edit := func(n *labNode, change func(*model.Node)) {
		copied := *l.snapshot.Nodes[n.name]
		change(&copied)
		l.snapshot = &model.Snapshot{Nodes: maps.Clone(l.snapshot.Nodes)}
		l.snapshot.Nodes[n.name] = &copied
	}
	road := func() error { _, err := ask(from.ns, to.addr, 100); return err }
	must(t, road())

	old := b.address
	b.address = netip.MustParseAddr("192.0.2.99")
	testenv.InNetNS(t, b.ns, func() {
		eth0 := linkByName(t, "eth0")
		must(t, netlink.AddrDel(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: old.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
		must(t, netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: b.address.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	})
	edit(b, func(n *model.Node) { n.Addresses = []netip.Addr{b.address} })
	setAll()
	eventually(t, 5*time.Second, road)
	if entries := a.forwards(t); strings.Contains(entries, old.String()) || !strings.Contains(entries, b.address.String()) {
		t.Errorf("forwarding entries after the address changed: %s", entries)
	}

	edit(b, func(n *model.Node) { n.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.77.0/24")} })
	setAll()
	b.options.Config.PodCIDRs = l.snapshot.Nodes[b.name].PodCIDRs
	must(t, cni.Install(b.options))
	if routes := a.routes(t); strings.Contains(routes, "10.244.2.0/24") || strings.Contains(routes, "fd00:244:2::/64") || !strings.Contains(routes, "10.244.77.0/24") {
		t.Errorf("routes after the range changed: %s", routes)
	}
	path := "/run/netns/ho-p2"
	ns := testenv.NamedNetNS(t, "ho-p2")
	result, err := b.attach(t, "p2", path)
	must(t, err)
	if got := result.IPs[0].Address.IP.String(); got != "10.244.77.1" {
		t.Errorf("the new pod has %s", got)
	}
	to = pod{ns: ns, addr: netip.MustParseAddr("10.244.77.1")}
	serveEcho(t, to.ns)
	must(t, road())

	l.snapshot = &model.Snapshot{Nodes: maps.Clone(l.snapshot.Nodes)}
	delete(l.snapshot.Nodes, c.name)
	setAll()
	if routes, entries := a.routes(t), a.forwards(t); strings.Contains(routes, "10.244.3.0/24") || strings.Contains(entries, c.address.String()) {
		t.Errorf("after the node went: %s, %s", routes, entries)
	}
	must(t, road())
}

// forwards and routes are the overlay's entries in a node's kernel, as text.
func (n *labNode) forwards(t testing.TB) string {
	t.Helper()
	var out []netlink.Neigh
	testenv.InNetNS(t, n.ns, func() {
		var err error
		out, err = netlink.NeighList(linkByName(t, link.OverlayName).Attrs().Index, unix.AF_BRIDGE)
		must(t, err)
	})
	return fmt.Sprint(out)
}

func (n *labNode) routes(t testing.TB) string {
	t.Helper()
	var out []netlink.Route
	testenv.InNetNS(t, n.ns, func() {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			list, err := netlink.RouteList(nil, family)
			must(t, err)
			out = append(out, list...)
		}
	})
	return fmt.Sprint(out)
}

func deleteNeighbours(t testing.TB, d netlink.Link, family int) {
	list, err := netlink.NeighList(d.Attrs().Index, family)
	must(t, err)
	for _, n := range list {
		_ = netlink.NeighDel(&n)
	}
}

// TestAddDel says that each command may be repeated, and what it leaves.
func TestAddDel(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	p := n.pod(t, "p0")
	again, err := n.attach(t, "p0", p.path)
	must(t, err)
	if first, second := toJSON(t, p.result), toJSON(t, again); first != second {
		t.Errorf("first ADD: %s, second: %s", first, second)
	}
	must(t, n.detach(t, "p0", p.path))
	must(t, n.detach(t, "p0", p.path))
	n.wantNothing(t)

	next := n.pod(t, "p1")
	if next.addr == p.addr || next.addr6 == p.addr6 {
		t.Errorf("the address %v was given again at once", next.addr)
	}
	_ = next.ns.Close()
	must(t, netns.DeleteNamed("ho-p1"))
	must(t, n.detach(t, "p1", next.path))
	n.wantNothing(t)

	if err := n.detach(t, "never", ""); err != nil {
		t.Errorf("DEL of what never was: %v", err)
	}
	if _, err := n.attach(t, "bad", "/run/netns/ho-there-is-none"); err == nil {
		t.Error("ADD without a namespace succeeded")
	}
	n.wantNothing(t)
}

// TestReboot says that leases of another boot are none.
func TestReboot(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	first := n.pod(t, "p0")
	_ = first.ns.Close()
	must(t, netns.DeleteNamed("ho-p0"))
	must(t, os.WriteFile(n.options.BootIDFile, []byte("boot-2\n"), 0o644))
	if l := n.leases(t); len(l.Leases) != 0 {
		t.Errorf("leases after a reboot: %v", l)
	}
	// Others may not know yet that the pod is gone, and would send to the new one.
	if again := n.pod(t, "p0"); again.addr == first.addr {
		t.Errorf("the first address after a reboot is that of another pod before: %v", again.addr)
	}
}

// TestSweep says that a lease whose link is gone ends, and no other.
func TestSweep(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	gone, stays := n.pod(t, "p0"), n.pod(t, "p1")
	testenv.InNetNS(t, n.ns, func() {
		must(t, link.DeletePod(gone.result.Interfaces[0].Name))
		ended, err := cni.Sweep(n.options.DataDir, n.options.BootIDFile, cni.Now(), 0)
		if err != nil || ended != 1 {
			t.Errorf("Sweep ended %d, error %v; want 1", ended, err)
		}
	})
	if l := n.leases(t); len(l.Leases) != 1 || l.Leases[0].ContainerID != stays.name {
		t.Errorf("leases: %v", l)
	}
}

// TestRepairPod says that a pod whose route was deleted is reached again, and that what is right is not written.
func TestRepairPod(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	p := n.pod(t, "p0")
	testenv.InNetNS(t, n.ns, func() {
		host, err := netlink.LinkByName(p.result.Interfaces[0].Name)
		must(t, err)
		routes, err := netlink.RouteList(host, netlink.FAMILY_V4)
		must(t, err)
		for _, r := range routes {
			must(t, netlink.RouteDel(&r))
		}
		repair := func(want bool) {
			t.Helper()
			changes, err := cni.Repair(t.Context(), n.options.DataDir, n.options.BootIDFile, cni.Now(), 0)
			if err != nil || (changes > 0) != want {
				t.Errorf("Repair made %d changes, error %v", changes, err)
			}
		}
		repair(true)
		again, err := netlink.RouteList(host, netlink.FAMILY_V4)
		must(t, err)
		if len(routes) == 0 || len(again) != len(routes) {
			t.Errorf("routes %v, before they were deleted %v", again, routes)
		}
		repair(false)
	})
}

// TestNotReady says that runtimes are told to try again before the agent has done its part.
func TestNotReady(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	must(t, os.Remove(filepath.Join(n.options.RunDir, "cni.json")))
	testenv.NamedNetNS(t, "ho-p0")
	_, err := n.attach(t, "p0", "/run/netns/ho-p0")
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater {
		t.Errorf("ADD without configuration: %v, want code 11", err)
	}
	must(t, n.detach(t, "p0", "/run/netns/ho-p0"))
	must(t, cni.Install(n.options))
	_, err = n.attach(t, "p0", "/run/netns/ho-p0")
	must(t, err)
}

// TestExhausted says that a full range is an error that leaves nothing, and resting addresses another.
func TestExhausted(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	n.options.Config.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/30"), netip.MustParsePrefix("fd00:244:1::/64")}
	must(t, cni.Install(n.options))
	p0 := n.pod(t, "p0")
	n.pod(t, "p1")
	testenv.NamedNetNS(t, "ho-p2")
	code := func() uint {
		_, err := n.attach(t, "p2", "/run/netns/ho-p2")
		var e *types.Error
		if !errors.As(err, &e) {
			t.Fatalf("ADD: %v, want a CNI error", err)
		}
		return e.Code
	}
	if got := code(); got != cni.CodeNoAddress {
		t.Errorf("code %d, want %d", got, cni.CodeNoAddress)
	}
	must(t, n.detach(t, "p0", p0.path))
	if got := code(); got != types.ErrTryAgainLater {
		t.Errorf("code %d while an address rests, want %d", got, types.ErrTryAgainLater)
	}
	if l := n.leases(t); len(l.Leases) != 1 || len(n.podLinks(t)) != 1 {
		t.Errorf("leases %v, links %v", l, n.podLinks(t))
	}
}

// TestFullDisk gives the leases a file system that is full.
func TestFullDisk(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	must(t, os.MkdirAll(n.options.DataDir, 0o755))
	must(t, unix.Mount("ho-full", n.options.DataDir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(n.options.DataDir, unix.MNT_DETACH) })
	p0 := n.pod(t, "p0")
	filler := filepath.Join(n.options.DataDir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	testenv.NamedNetNS(t, "ho-p1")
	if _, err := n.attach(t, "p1", "/run/netns/ho-p1"); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("ADD on a full disk: %v", err)
	}
	if links := n.podLinks(t); len(links) != 1 {
		t.Errorf("links after a failed ADD: %v", links)
	}
	files, err := filepath.Glob(filepath.Join(n.options.DataDir, "cni", ".*"))
	if err != nil || len(files) != 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	must(t, n.detach(t, "p0", p0.path))
	if links := n.podLinks(t); len(links) != 0 {
		t.Errorf("links after DEL on a full disk: %v", links)
	}
	must(t, os.Remove(filler))
	testenv.InNetNS(t, n.ns, func() {
		_, err := cni.Sweep(n.options.DataDir, n.options.BootIDFile, cni.Now(), 0)
		must(t, err)
	})
	n.wantNothing(t)
}

// TestKilled kills the plugin at random moments of ADD, and then tries again.
func TestKilled(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	ns := testenv.NamedNetNS(t, "ho-p0")
	random := rand.New(rand.NewPCG(1, 2))
	killed := 0
	for i := range 60 {
		id := fmt.Sprintf("p%d", i)
		testenv.InNetNS(t, n.ns, func() {
			cmd := n.command(t, "ADD", id, "/run/netns/ho-p0")
			must(t, cmd.Start())
			time.Sleep(time.Duration(random.IntN(20_000)) * time.Microsecond)
			_ = cmd.Process.Kill()
			if cmd.Wait() != nil {
				killed++
			}
		})
		_, err := n.attach(t, id, "/run/netns/ho-p0")
		must(t, err)
		must(t, n.check(t, id, "/run/netns/ho-p0"))
		must(t, n.detach(t, id, "/run/netns/ho-p0"))
	}
	t.Logf("killed %d of 60 before their end", killed)
	if killed == 0 {
		t.Error("none was killed in time")
	}
	n.wantNothing(t)
	_ = ns
}

// command is one call of the plugin without libcni.
func (n *labNode) command(t testing.TB, verb, id, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(n.options.BinDir, cni.PluginName))
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + path, "CNI_IFNAME=eth0", "CNI_PATH=" + n.options.BinDir}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"hythe","type":"hythe-cni","configFile":%q,"dataDir":%q,"bootIDFile":%q,
		"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},
		"cni.dev/valid-attachments":[{"containerID":%q,"ifname":"eth0"}]}`,
		filepath.Join(n.options.RunDir, "cni.json"), n.options.DataDir, n.options.BootIDFile, id))
	return cmd
}

// TestGC says that what the runtime does not name goes, and nothing else.
func TestGC(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	n.pod(t, "p0")
	stays := n.pod(t, "p1")
	for range 2 {
		testenv.InNetNS(t, n.ns, func() {
			if out, err := n.command(t, "GC", "p1", "").CombinedOutput(); err != nil {
				t.Fatalf("GC: %v\n%s", err, out)
			}
		})
		if l, links := n.leases(t), n.podLinks(t); len(l.Leases) != 1 || l.Leases[0].ContainerID != "p1" || len(links) != 1 {
			t.Fatalf("after GC: leases %v, links %v", l, links)
		}
	}
	must(t, n.check(t, "p1", stays.path))
}

// TestStatus says that STATUS fails when ADD would.
func TestStatus(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	status := func() string {
		var out []byte
		testenv.InNetNS(t, n.ns, func() { out, _ = n.command(t, "STATUS", "", "").Output() })
		return string(out)
	}
	if out := status(); out != "" {
		t.Errorf("STATUS: %s", out)
	}
	must(t, cni.Uninstall(n.options))
	if out := status(); !strings.Contains(out, `"code": 50`) {
		t.Errorf("STATUS without configuration: %s, want code 50", out)
	}
	if l := n.leases(t); len(l.Leases) != 0 || len(l.Last) != 0 {
		t.Errorf("STATUS left leases: %v", l)
	}
}

// TestOtherEth0 says that an interface of somebody else in the pod is an error, and stays.
func TestOtherEth0(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	ns := testenv.NamedNetNS(t, "ho-p0")
	testenv.InNetNS(t, ns, func() {
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}))
	})
	if _, err := n.attach(t, "p0", "/run/netns/ho-p0"); err == nil || !strings.Contains(err.Error(), "another eth0") {
		t.Errorf("ADD: %v, want an error about another eth0", err)
	}
	n.wantNothing(t)
	testenv.InNetNS(t, ns, func() {
		if kind := linkByName(t, "eth0").Type(); kind != "bridge" {
			t.Errorf("eth0 is now a %s", kind)
		}
	})
}

// TestParallel attaches 50 pods at once: no address twice.
func TestParallel(t *testing.T) {
	l := newLab(t, 2)
	n := l.nodes[0]
	const count = 50
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	var wg sync.WaitGroup
	start := time.Now()
	for i := range count {
		id := fmt.Sprintf("par%d", i)
		testenv.NamedNetNS(t, "ho-"+id)
		wg.Go(func() {
			result, err := n.attach(t, id, "/run/netns/ho-"+id)
			if err != nil {
				t.Errorf("ADD %s: %v", id, err)
				return
			}
			v4, v6 := addresses(t, result)
			mu.Lock()
			defer mu.Unlock()
			for _, a := range []netip.Addr{v4, v6} {
				if other, ok := seen[a]; ok {
					t.Errorf("%s and %s both have %s", id, other, a)
				}
				seen[a] = id
			}
		})
	}
	wg.Wait()
	t.Logf("%d ADDs at once: %v", count, time.Since(start).Round(time.Millisecond))
	for i := range count {
		id := fmt.Sprintf("par%d", i)
		wg.Go(func() {
			if err := n.detach(t, id, "/run/netns/ho-"+id); err != nil {
				t.Errorf("DEL %s: %v", id, err)
			}
		})
	}
	wg.Wait()
	n.wantNothing(t)
}

// TestRemove says that nothing of ours stays, and what others made does.
func TestRemove(t *testing.T) {
	n := newLab(t, 2).nodes[0]
	n.pod(t, "p0")
	testenv.InNetNS(t, n.ns, func() {
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: linkByName(t, "eth0").Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(198, 51, 100, 0), Mask: net.CIDRMask(24, 32)}}))
	})
	must(t, n.links.Remove(t.Context()))
	testenv.InNetNS(t, n.ns, func() {
		links, err := netlink.LinkList()
		must(t, err)
		for _, l := range links {
			if name := l.Attrs().Name; name != "lo" && name != "eth0" {
				t.Errorf("link %s is still there", name)
			}
		}
		routes, err := netlink.RouteList(nil, unix.AF_INET)
		must(t, err)
		if len(routes) != 2 {
			t.Errorf("routes: %v, want the LAN's and the foreign one", routes)
		}
	})
}

// wantNothing fails if the node has any lease or pod link.
func (n *labNode) wantNothing(t testing.TB) {
	t.Helper()
	if l, links := n.leases(t), n.podLinks(t); len(l.Leases) != 0 || len(links) != 0 {
		t.Errorf("left behind: leases %v, links %v", l, links)
	}
}

func (n *labNode) leases(t testing.TB) *cni.Leases {
	t.Helper()
	l, err := cni.ReadLeases(n.options.DataDir, n.options.BootIDFile)
	must(t, err)
	return l
}

func (n *labNode) podLinks(t testing.TB) []string {
	t.Helper()
	var names []string
	testenv.InNetNS(t, n.ns, func() {
		var err error
		names, err = link.PodLinks()
		must(t, err)
	})
	return names
}

// BenchmarkAddDel is one ADD and one DEL, each a process as a runtime starts it.
func BenchmarkAddDel(b *testing.B) {
	n := newLab(b, 1).nodes[0]
	testenv.NamedNetNS(b, "ho-bench")
	i := 0
	for b.Loop() {
		id := fmt.Sprintf("bench%d", i%100)
		i++
		testenv.InNetNS(b, n.ns, func() {
			for _, verb := range []string{"ADD", "DEL"} {
				if out, err := n.command(b, verb, id, "/run/netns/ho-bench").CombinedOutput(); err != nil {
					b.Fatalf("%s: %v\n%s", verb, err, out)
				}
			}
		})
	}
}
