package nft

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/proxy"
)

// TestChoice sends real packets to Services whose endpoints a hash chooses: each source comes to the endpoint that the
// table of slots says, and that readback.Lookup tells before.
func TestChoice(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) {
			n := build(t, at)
			c := chooser{t, n, at, testTable(t, InNetNS(int(n.node.ns))), map[string]string{at.a: "a", at.b: "b", at.remote: "remote"}}
			set1(t, c.table, chosen(t, at, map[int]string{clusterPolicy: "source-hash", localPolicy: "source-port-hash", datagrams: "source-port-hash"}))
			c.bySource()
			c.byPort()
			c.local()
			c.sticky()
		})
	}
}

// chosen is the state where the given Services choose by hash, and those in sticky have session affinity.
func chosen(t *testing.T, at addresses, choice map[int]string, sticky ...int) proxy.State {
	t.Helper()
	s := snapshot(at)
	for n, how := range choice {
		svc := s.Services.Get(serviceKey(n))
		svc.Annotations = map[string]string{v1alpha1.EndpointChoiceAnnotation: how}
		if slices.Contains(sticky, n) {
			svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		}
	}
	state, problems := proxy.Build(s, "one", proxy.DefaultSettings())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return state
}

type chooser struct {
	*testing.T
	n      topology
	at     addresses
	table  *Table
	nameOf map[string]string
}

func (c chooser) lookup(from, to string, protocol proxy.Protocol, fromPort uint16) readback.Found {
	c.Helper()
	q := readback.Query{To: netip.MustParseAddr(to), Protocol: protocol, Port: 80, FromPort: fromPort}
	if from != "" {
		q.From = netip.MustParseAddr(from)
	}
	var f readback.Found
	c.n.node.do(func() {
		var err error
		if f, err = readback.Lookup(q); err != nil {
			c.Fatal(err)
		}
	})
	return f
}

// bySource: each source has its endpoint, by VIP, ClusterIP and NodePort.
func (c chooser) bySource() {
	n, at := c.n, c.at
	vip, ip := fmt.Sprintf(at.vip, clusterPolicy), fmt.Sprintf(at.service, clusterPolicy)
	seen := map[string]bool{}
	for i := 0; i < 40 && len(seen) < 3; i++ {
		extra := fmt.Sprintf(at.vip, 100+i)
		f := c.lookup(extra, vip, proxy.TCP, 0)
		if f.Outside.Choice != "by source" || len(f.Endpoints) != 3 || !f.Outside.Chosen.IsValid() {
			c.Fatalf("looked up %+v", f.Outside)
		}
		want := c.nameOf[f.Outside.Chosen.Addr().String()]
		if seen[want] {
			continue
		}
		seen[want] = true
		n.client.address("eth0", extra, at.bits)
		n.client.eventually("an answer to "+extra, func() (ok bool) {
			n.client.do(func() { _, err := from(extra, vip, 80); ok = err == nil })
			return ok
		})
		for where, port := range map[string]int{vip: 80, ip: 80, at.node: 30080 + clusterPolicy} {
			for range 4 {
				n.client.do(func() {
					if server, err := from(extra, where, port); err != nil || server != want {
						c.Errorf("%s to %s %d comes to %q, %v; want %s", extra, where, port, server, err, want)
					}
				})
			}
		}
		n.client.must(n.client.nl.AddrDel(n.client.up("eth0"), &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(extra))}))
	}
	if len(seen) != 3 {
		c.Errorf("40 sources come to %v", slices.Collect(maps.Keys(seen)))
	}
	for _, h := range []struct {
		host
		addr string
	}{{n.node, ""}, {n.a, at.a}, {n.b, at.b}} {
		want := c.nameOf[c.lookup(h.addr, ip, proxy.TCP, 0).Outside.Chosen.Addr().String()]
		for range 5 {
			if server, _, err := h.ask("tcp", ip, 80); err != nil || server != want {
				c.Errorf("%s comes to %q, %v; want %s", h.name, server, err, want)
			}
		}
	}
}

// byPort: each flow has its endpoint, and all endpoints have flows.
func (c chooser) byPort() {
	vip := fmt.Sprintf(c.at.vip, datagrams)
	spread := map[string]bool{}
	for range 24 {
		s := c.n.client.sender(vip, 80)
		local := netip.MustParseAddrPort(s.LocalAddr().String())
		f := c.lookup(c.at.client, vip, proxy.UDP, local.Port())
		want := c.nameOf[f.Outside.Chosen.Addr().String()]
		if got := s.hears(); got != want || want == "" {
			c.Errorf("from %s it comes to %q, want %q by %+v", local, got, want, f.Outside)
		}
		spread[want] = true
	}
	if len(spread) != 2 {
		c.Errorf("24 flows all came to %v", spread)
	}
	if f := c.lookup(c.at.client, vip, proxy.UDP, 0); f.Outside.Chosen.IsValid() || f.Outside.Choice != "by source and port" || len(f.Endpoints) != 2 {
		c.Errorf("without a port: %+v", f.Outside)
	}
}

// local: externalTrafficPolicy Local leads to this node's endpoint from outside, and by the hash from inside.
func (c chooser) local() {
	vip := fmt.Sprintf(c.at.vip, localPolicy)
	c.n.client.answers("tcp", vip, 80, map[string]string{"a": c.at.client})
	c.n.b.answers("tcp", vip, 80, map[string]string{"a": c.at.b, "remote": c.at.b})
}

// sticky: session affinity keeps the endpoint of the last connection; a new client comes where the hash says.
func (c chooser) sticky() {
	vip := fmt.Sprintf(c.at.vip, clusterPolicy)
	want := c.lookup(c.at.client, vip, proxy.TCP, 0).Outside.Chosen
	without := chosen(c.T, c.at, map[int]string{clusterPolicy: "source-port-hash"}, clusterPolicy)
	full := chosen(c.T, c.at, map[int]string{clusterPolicy: "source-port-hash"}, clusterPolicy)
	ask := func() string {
		server, _, err := c.n.client.ask("tcp", vip, 80)
		if err != nil {
			c.Error(err)
		}
		return server
	}
	for f, b := range without.Frontends {
		if len(b.Outside) == 3 {
			b.Outside = slices.DeleteFunc(slices.Clone(b.Outside), func(e netip.AddrPort) bool { return e == want })
			b.Inside = b.Outside
			without.Frontends[f] = b
		}
	}
	set1(c.T, c.table, full)
	for range 5 {
		if got := ask(); got != c.nameOf[want.Addr().String()] {
			c.Errorf("a new client comes to %s, want %s", got, want)
		}
	}
	set1(c.T, c.table, without)
	other := ask()
	set1(c.T, c.table, full)
	for range 5 {
		if got := ask(); got != other {
			c.Errorf("a client of %s comes to %s when the endpoint of its slot is back", other, got)
		}
	}
	if f := c.lookup(c.at.client, vip, proxy.TCP, 0); f.Outside.Chosen != want || c.nameOf[f.Outside.Stays.Addr().String()] != other {
		c.Errorf("with affinity: %+v", f.Outside)
	}
}

func serviceKey(n int) model.Key {
	return model.Key{Namespace: "default", Name: fmt.Sprint("service-", n)}
}

// TestChoiceOnTwoNodes: nodes that heard of the endpoints in another order hold the same slots.
func TestChoiceOnTwoNodes(t *testing.T) {
	testenv.Root(t)
	held := func(order ...int) (slots string) {
		ns := testenv.NewNetNS(t)
		table := testTable(t, InNetNS(int(ns)))
		choice := map[int]string{clusterPolicy: "source-port-hash"}
		for _, i := range order { // one endpoint after the other
			part := chosen(t, four, choice)
			for f, b := range part.Frontends {
				if len(b.Outside) == 3 {
					b.Outside = b.Outside[i : i+1 : i+1]
					b.Inside = b.Outside
					part.Frontends[f] = b
				}
			}
			set1(t, table, part)
		}
		set1(t, table, chosen(t, four, choice))
		var out []string
		for e, v := range table.contents {
			if strings.HasPrefix(e.Set, "endpoints4") {
				out = append(out, e.Key+v)
			}
		}
		slices.Sort(out)
		return strings.Join(out, "")
	}
	if held(0, 1, 2) != held(2, 0) {
		t.Error("two nodes have other slots")
	}
}

// TestChoiceOfOneEndpoint: an eleventh endpoint writes an eleventh of the slots and little more.
func TestChoiceOfOneEndpoint(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.7"), Protocol: proxy.TCP, Port: 80}
	state := func(n int) proxy.State {
		s := services(50)
		eps := endpoints("10.244.9.2", n)
		s.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps, Choice: proxy.BySource}
		return s
	}
	set1(t, table, state(10))
	checkFrontends(t, state(10))
	changes, sent := value(table.metrics.changes), batches(table)
	set1(t, table, state(11))
	checkFrontends(t, state(11))
	if got := value(table.metrics.changes) - changes; got < 20 || got > 50 {
		t.Errorf("%v of 251 elements changed for an eleventh endpoint", got)
	}
	if got := batches(table) - sent; got != 1 {
		t.Errorf("%v transactions", got)
	}
}
