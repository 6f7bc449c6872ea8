package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/overlay"
)

// A lab is nodes in network namespaces on one LAN, a bridge in a namespace of its own.
type lab struct {
	lan      netns.NsHandle
	nodes    []*labNode
	snapshot *model.Snapshot
}

type labNode struct {
	name    string
	dir     string
	ns      netns.NsHandle
	links   *link.Links
	address netip.Addr
	options cni.InstallOptions
	list    *libcni.NetworkConfigList
}

// newLab makes n nodes with the overlay and the plugin in place.
func newLab(t testing.TB, n int) *lab {
	t.Helper()
	testenv.Root(t)
	plugin := buildPlugin(t)
	l := &lab{snapshot: &model.Snapshot{Nodes: map[string]*model.Node{}}, lan: testenv.NamedNetNS(t, "ho-lan")}
	testenv.InNetNS(t, l.lan, func() {
		// Frames on the LAN are not for the host's packet filter.
		for _, name := range []string{"iptables", "ip6tables", "arptables"} {
			_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0o644)
		}
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}))
		must(t, netlink.LinkSetUp(linkByName(t, "lan")))
	})
	for i := range n {
		l.nodes = append(l.nodes, l.addNode(t, i, plugin))
	}
	for _, node := range l.nodes {
		must(t, node.links.Set(t.Context(), l.state(node)))
		must(t, cni.Install(node.options))
		list, err := libcni.ConfListFromFile(filepath.Join(node.options.ConfDir, cni.ConflistName))
		must(t, err)
		node.list = list
	}
	return l
}

func (l *lab) state(node *labNode) overlay.State {
	state, problems := overlay.Build(l.snapshot, node.name, overlay.Settings{})
	if len(problems) > 0 {
		panic(fmt.Sprint(problems))
	}
	return state
}

func (l *lab) addNode(t testing.TB, i int, plugin string) *labNode {
	name := fmt.Sprintf("ho-n%d", i)
	node := &labNode{name: name, dir: t.TempDir(), ns: testenv.NamedNetNS(t, name),
		address: netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)})}
	cidrs := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(1 + i), 0}), 24),
		netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", 1+i))}
	testenv.InNetNS(t, l.lan, func() {
		v := netlink.NewVeth(netlink.LinkAttrs{Name: name, MTU: 1500, TxQLen: -1})
		v.PeerName, v.PeerNamespace, v.PeerMTU = "eth0", netlink.NsFd(int(node.ns)), 1500
		must(t, netlink.LinkAdd(v))
		must(t, netlink.LinkSetMaster(linkByName(t, name), linkByName(t, "lan")))
		must(t, netlink.LinkSetUp(linkByName(t, name)))
	})
	testenv.InNetNS(t, node.ns, func() {
		must(t, netlink.LinkSetUp(linkByName(t, "lo")))
		eth0 := linkByName(t, "eth0")
		// So that nothing changes later by itself, which would wake Run.
		must(t, os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0o644))
		must(t, netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: node.address.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
		must(t, netlink.LinkSetUp(eth0))
		var err error
		node.links, err = link.New(slog.New(slog.NewTextHandler(testWriter{t}, nil)))
		must(t, err)
	})
	t.Cleanup(node.links.Close)
	l.snapshot.Nodes[name] = &model.Node{Name: name, Addresses: []netip.Addr{node.address}, PodCIDRs: cidrs}
	sub := func(s string) string { return filepath.Join(node.dir, s) }
	node.options = cni.InstallOptions{Plugin: plugin, BinDir: sub("bin"), ConfDir: sub("conf"), RunDir: sub("run"),
		DataDir: sub("data"), BootIDFile: sub("boot_id"), HostPorts: true, Config: cni.Config{PodCIDRs: cidrs, MTU: 1450}}
	must(t, os.WriteFile(node.options.BootIDFile, []byte("boot-1\n"), 0o644))
	return node
}

// A testWriter sends a logger's lines to the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", b)
	}
	return len(b), nil
}

// attach and detach call the real plugin in the node's namespace, as a container runtime would.
func (n *labNode) attach(t testing.TB, pod, path string) (*types100.Result, error) {
	var result *types100.Result
	err := n.cni(t, func(c *libcni.CNIConfig) error {
		r, err := c.AddNetworkList(context.Background(), n.list, runtimeConf(pod, path))
		if err != nil {
			return err
		}
		result, err = types100.GetResult(r)
		return err
	})
	return result, err
}

func (n *labNode) detach(t testing.TB, pod, path string) error {
	return n.cni(t, func(c *libcni.CNIConfig) error {
		return c.DelNetworkList(context.Background(), n.list, runtimeConf(pod, path))
	})
}

func (n *labNode) check(t testing.TB, pod, path string) error {
	return n.cni(t, func(c *libcni.CNIConfig) error {
		return c.CheckNetworkList(context.Background(), n.list, runtimeConf(pod, path))
	})
}

func (n *labNode) cni(t testing.TB, call func(*libcni.CNIConfig) error) error {
	c := libcni.NewCNIConfigWithCacheDir([]string{n.options.BinDir}, filepath.Join(n.dir, "cache"), nil)
	var err error
	testenv.InNetNS(t, n.ns, func() { err = call(c) })
	return err
}

func runtimeConf(pod, path string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: pod, NetNS: path, IfName: "eth0"}
}

// A pod is a network namespace that the plugin attached.
type pod struct {
	name, path  string
	ns          netns.NsHandle
	addr, addr6 netip.Addr
	result      *types100.Result
}

func (n *labNode) pod(t testing.TB, name string) pod {
	t.Helper()
	p := pod{name: name, path: "/run/netns/ho-" + name, ns: testenv.NamedNetNS(t, "ho-"+name)}
	result, err := n.attach(t, name, p.path)
	must(t, err)
	p.result = result
	p.addr, p.addr6 = addresses(t, result)
	return p
}

func addresses(t testing.TB, r *types100.Result) (v4, v6 netip.Addr) {
	t.Helper()
	if len(r.IPs) != 2 {
		t.Fatalf("result has %d addresses, want 2: %v", len(r.IPs), r)
	}
	v4, _ = netip.AddrFromSlice(r.IPs[0].Address.IP.To4())
	v6, _ = netip.AddrFromSlice(r.IPs[1].Address.IP)
	return v4, v6
}

// serveEcho answers each datagram at port 7 with the sender's address, until the test ends.
func serveEcho(t testing.TB, ns netns.NsHandle, at ...netip.Addr) {
	t.Helper()
	host := ""
	if len(at) > 0 {
		host = at[0].String()
	}
	testenv.InNetNS(t, ns, func() {
		c, err := net.ListenPacket("udp", net.JoinHostPort(host, "7"))
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 65536)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				answer := make([]byte, n)
				copy(answer, from.(*net.UDPAddr).AddrPort().Addr().Unmap().String()+" ")
				_, _ = c.WriteTo(answer, from)
			}
		}()
	})
}

// ask sends a datagram of n bytes that must not be fragmented, and returns which source address the echo saw.
func ask(ns netns.NsHandle, to netip.Addr, n int) (netip.Addr, error) {
	var seen netip.Addr
	var err error
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		if err = netns.Set(ns); err == nil {
			seen, err = askHere(to, n)
		}
	})
	wg.Wait()
	return seen, err
}

func askHere(to netip.Addr, n int) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 7)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.Addr{}, err
	}
	_ = raw.Control(func(fd uintptr) {
		if to.Is4() {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1))
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}
	})
	if err != nil {
		return netip.Addr{}, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write(make([]byte, n)); err != nil {
		return netip.Addr{}, err
	}
	b := make([]byte, 65536)
	got, err := c.Read(b)
	if err != nil {
		return netip.Addr{}, err
	}
	if got != n {
		return netip.Addr{}, fmt.Errorf("got %d bytes, want %d", got, n)
	}
	var text string
	if _, err := fmt.Sscan(string(b[:got]), &text); err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(text)
}

func linkByName(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func buildPlugin(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), cni.PluginName)
	out, err := exec.Command("go", "build", "-o", path, "hythe.dev/hythe/cmd/hythe-cni").CombinedOutput()
	if err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	return path
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until check returns nil, for at most the given time, and returns how long that took.
func eventually(t testing.TB, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("still not after %v: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
