package nft

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// TestAffinity has clients stay with an endpoint for as long as it is there, and no longer than they should.
func TestAffinity(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { stays(t, at) })
	}
}

func stays(t *testing.T, at addresses) {
	n := build(t, at)
	table := testTable(t, InNetNS(int(n.node.ns)))
	seconds := int32(3600)
	state := func(without ...string) proxy.State {
		s := snapshot(at)
		for key, svc := range s.Services.All() {
			if strings.HasSuffix(key.Name, fmt.Sprint("-", clusterPolicy)) || strings.HasSuffix(key.Name, fmt.Sprint("-", localPolicy)) {
				svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
			}
			eps := &s.Endpoints.Get(key).Ports[0].Endpoints
			for i := len(*eps) - 1; i >= 0; i-- {
				if strings.Contains(strings.Join(without, " ")+" ", (*eps)[i].AddrPort.Addr().String()+" ") {
					*eps = append((*eps)[:i:i], (*eps)[i+1:]...)
				}
			}
		}
		out, problems := proxy.Build(s, "one", proxy.DefaultSettings())
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return out
	}
	set1(t, table, state())
	// one asks often and returns the only one that answers.
	one := func(h host, network, addr string, port int) string {
		t.Helper()
		first := ""
		for range 30 {
			server, _, err := h.ask(network, addr, port)
			if first == "" {
				first = server
			}
			if err != nil || server != first {
				t.Errorf("%s to %s %d: %s, then %s, %v", h.name, addr, port, first, server, err)
				break
			}
		}
		return first
	}
	vip, ip := fmt.Sprintf(at.vip, clusterPolicy), fmt.Sprintf(at.service, clusterPolicy)
	addressOf := map[string]string{"a": at.a, "b": at.b, "remote": at.remote}
	chosen := one(n.client, "tcp", vip, 80)
	one(n.client, "tcp", at.node, 30080+clusterPolicy)
	one(n.a, "tcp", ip, 80)
	one(n.node, "tcp", ip, 80)
	one(n.b, "tcp", fmt.Sprintf(at.vip, localPolicy), 80)
	if got := one(n.client, "tcp", fmt.Sprintf(at.vip, localPolicy), 80); got != "a" {
		t.Errorf("externalTrafficPolicy Local comes to %s", got)
	}
	// Not all clients go to one: sources differ.
	seen := map[string]bool{}
	for i := 0; i < 40 && len(seen) < 2; i++ {
		extra := fmt.Sprintf(at.vip, 100+i)
		n.client.address("eth0", extra, at.bits)
		// IPv6 makes an address usable in its own time.
		n.client.eventually("an answer to "+extra, func() (ok bool) {
			n.client.do(func() {
				server, err := from(extra, vip, 80)
				seen[server], ok = true, err == nil
			})
			delete(seen, "")
			return ok
		})
		// Else it may become the source of others.
		n.client.must(n.client.nl.AddrDel(n.client.up("eth0"), &vishvananda.Addr{IPNet: vishvananda.NewIPNet(net.ParseIP(extra))}))
	}
	if len(seen) < 2 {
		t.Errorf("40 clients all came to %v", seen)
	}
	n.node.do(func() {
		f, err := readback.Lookup(readback.Query{From: netip.MustParseAddr(at.client), To: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 80})
		if err != nil || f.Outside.Stays.Addr().String() != addressOf[chosen] || f.Outside.Affinity.Seconds() != 3600 || len(f.Endpoints) != 3 {
			t.Errorf("the client stays with %s; read %+v, %v", chosen, f.Outside, err)
		}
	})
	// Other changes leave it; when its endpoint goes, it goes to a living one and stays there.
	set1(t, table, state())
	for other, addr := range addressOf {
		if other == chosen {
			continue
		}
		set1(t, table, state(addr))
		if got := one(n.client, "tcp", vip, 80); got != chosen {
			t.Errorf("without %s a client of %s comes to %s", other, chosen, got)
		}
	}
	set1(t, table, state(addressOf[chosen]))
	next := one(n.client, "tcp", vip, 80)
	if next == chosen {
		t.Errorf("a client stays with %s, which is gone", chosen)
	}
	set1(t, table, state())
	if got := one(n.client, "tcp", vip, 80); got != next {
		t.Errorf("a client of %s comes to %s when another endpoint comes back", next, got)
	}
	// Another time writes another rule; a restart keeps who stays where.
	before := batches(table)
	second := testTable(t, InNetNS(int(n.node.ns)))
	_ = table.Close()
	set1(t, second, state())
	if got := one(n.client, "tcp", vip, 80); got != next || batches(second) > 1 {
		t.Errorf("after a restart (%v, %v transactions) a client of %s comes to %s", before, batches(second), next, got)
	}
	// An agent of another version replaces the table, and the time goes on.
	stay := func() nfnetlink.TimedElement {
		t.Helper()
		var all []nfnetlink.TimedElement
		for _, s := range second.sets {
			if strings.HasPrefix(s.Name, "affinity") {
				some, err := second.conn.TimedElements(s.Set, 100)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, some...)
			}
		}
		key := string(netip.MustParseAddr(vip).AsSlice()) + ruleset.PortKey(proxy.TCP, 80) + string(netip.MustParseAddr(at.client).AsSlice())
		i := slices.IndexFunc(all, func(e nfnetlink.TimedElement) bool { return e.Key == key })
		if i < 0 {
			t.Fatalf("the client is not among %d", len(all))
		}
		return all[i]
	}
	is := stay()
	_ = second.Close()
	outdated(t, state(), InNetNS(int(n.node.ns)))
	second = testTable(t, InNetNS(int(n.node.ns)))
	set1(t, second, state())
	if e := stay(); value(second.metrics.rebuilds) != 1 || e.Value != is.Value || e.Timeout != time.Hour || e.Left > is.Left || e.Left < is.Left-10*time.Minute {
		t.Errorf("the client stays by %+v; before the table was replaced by %+v", e, is)
	}
	if got := one(n.client, "tcp", vip, 80); got != next {
		t.Errorf("after the table was replaced a client of %s comes to %s", next, got)
	}
	// After its time a client is anybody.
	seconds = 1
	set1(t, second, state())
	one(n.client, "tcp", vip, 80) // gives its entry the new time
	left := false
	for range 30 { // of three endpoints, each time
		first, _, _ := n.client.ask("tcp", vip, 80)
		n.node.eventually("the entry goes", func() (gone bool) {
			n.node.do(func() {
				f, err := readback.Lookup(readback.Query{From: netip.MustParseAddr(at.client), To: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 80})
				gone = err == nil && !f.Outside.Stays.IsValid()
			})
			return gone
		})
		later, _, _ := n.client.ask("tcp", vip, 80)
		if left = first != later; left {
			break
		}
	}
	if !left {
		t.Error("clients stay after their time")
	}
}

// TestRememberedNotTaken: the kernel does not take what a table remembers. The table is replaced all the same.
func TestRememberedNotTaken(t *testing.T) {
	testenv.NetNS(t)
	for name, err := range map[string]error{"an element": unix.EINVAL, "the transaction": unix.ENOMEM} {
		t.Run(name, func(t *testing.T) {
			state := services(10)
			first := testTable(t, WithoutOwner())
			set1(t, first, state)
			ends := []conntrack.Tuple{{Src: netip.MustParseAddrPort("192.0.2.1:5000"), Dst: netip.MustParseAddrPort("10.96.0.1:80")}}
			if err := first.End(ends); err != nil {
				t.Fatal(err)
			}
			_ = first.Close()
			outdated(t, state)
			table := testTable(t, WithoutOwner())
			key := ruleset.Ended(ends[0].Src, ends[0].Dst).Key
			refusals := 0
			table.transact = func(messages []netlink.Message) error {
				i := slices.IndexFunc(messages, func(m netlink.Message) bool { return bytes.Contains(m.Data, []byte(key)) })
				if i < 0 {
					return table.conn.Batch(messages)
				}
				if refusals++; errors.Is(err, unix.ENOMEM) {
					i = -1
				}
				return &nfnetlink.BatchError{Failures: []nfnetlink.Failure{{Message: i, Err: err}}}
			}
			set1(t, table, state)
			if check(t, state); refusals == 0 || len(table.refused) > 0 {
				t.Errorf("%d refusals; %v", refusals, table.refused)
			}
		})
	}
}

// TestAffinityFull has more clients than a node remembers: a flood of SYNs makes them in seconds. The next one is served.
func TestAffinityFull(t *testing.T) {
	testenv.Root(t)
	needNft(t)
	at := four
	n := build(t, at)
	table := testTable(t, InNetNS(int(n.node.ns)), WithoutOwner())
	s := snapshot(at)
	seconds := int32(3600)
	for _, svc := range s.Services.All() {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	state, _ := proxy.Build(s, "one", proxy.DefaultSettings())
	set1(t, table, state)
	vip := fmt.Sprintf(at.vip, clusterPolicy)
	var flood strings.Builder
	flood.WriteString("add element inet hythe affinity4 { ")
	for i := range ruleset.MaxClients {
		fmt.Fprintf(&flood, "%s . tcp . 80 . 11.%d.%d.%d timeout 1h : tcp . %s . 8080,\n", vip, i>>16, i>>8&255, i&255, at.a)
	}
	flood.WriteString("}\n")
	file := filepath.Join(t.TempDir(), "flood.nft")
	if err := os.WriteFile(file, []byte(flood.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	n.node.do(func() {
		if err := nftTool(t, "-f", file); err != nil {
			t.Fatal(err)
		}
	})
	for range 5 {
		if server, _, err := n.client.ask("tcp", vip, 80); err != nil {
			t.Errorf("a client too many comes to %q, %v", server, err)
		}
	}
	n.node.do(func() {
		f, err := readback.Lookup(readback.Query{From: netip.MustParseAddr(at.client), To: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 80})
		if err != nil || f.Outside.Stays.IsValid() {
			t.Errorf("the map was not full: the client stays with %v, %v", f.Outside.Stays, err)
		}
	})
	// An agent of another version has no use for a flood, and goes on.
	_ = table.Close()
	n.node.do(func() {
		if err := nftTool(t, "add chain inet hythe of-another-version; add rule inet hythe of-another-version accept"); err != nil {
			t.Fatal(err)
		}
	})
	table = testTable(t, InNetNS(int(n.node.ns)), WithoutOwner())
	set1(t, table, state)
	if value(table.metrics.rebuilds) != 1 {
		t.Error("the table was not replaced")
	}
	if server, _, err := n.client.ask("tcp", vip, 80); err != nil {
		t.Errorf("after the table was replaced a client comes to %q, %v", server, err)
	}
}

// from asks from an address of the calling thread's namespace, and returns who answers.
func from(source, addr string, port int) (string, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	c, err := d.Dial("tcp", net.JoinHostPort(addr, fmt.Sprint(port)))
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	server, _, _ := strings.Cut(string(b), " ")
	return server, err
}
