package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/proxy"
)

// A sender keeps its port for ever, as a resolver does.
type sender struct {
	host
	net.Conn
}

func (h host) sender(to string, port int) sender {
	h.Helper()
	s := sender{host: h}
	h.do(func() {
		var err error
		s.Conn, err = net.Dial("udp", net.JoinHostPort(to, fmt.Sprint(port)))
		h.must(err)
	})
	h.Cleanup(func() { _ = s.Close() })
	return s
}

// hears sends once and returns who answers: a host's name, "refused", or "" for nobody.
func (s sender) hears() string { return s.hearsWithin(patience) }

func (s sender) hearsWithin(wait time.Duration) string {
	_ = s.SetDeadline(time.Now().Add(wait))
	buf := make([]byte, 100)
	_, err := s.Write([]byte("?"))
	if errors.Is(err, syscall.EPERM) { // refused before it left this node
		return "refused"
	}
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		s.Errorf("send: %v", err)
	}
	n, err := s.Read(buf)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "refused"
	}
	server, _, _ := strings.Cut(string(buf[:n]), " ")
	return server
}

func (s sender) comesTo(want string) {
	s.Helper()
	last := ""
	s.eventually("it comes to "+want, func() bool { last = s.hearsWithin(100 * time.Millisecond); return last == want })
	if last != want {
		s.Errorf("it comes to %q", last)
	}
}

// A datapath is the rules and the flows of a node, as the agent sets them.
type datapath struct {
	*testing.T
	n     topology
	at    addresses
	table *Table
	flows *conntrack.Flows
	reg   *prometheus.Registry
	stop  func()
}

func newDatapath(t *testing.T, n topology, at addresses) *datapath {
	d := &datapath{T: t, n: n, at: at, table: testTable(t, InNetNS(int(n.node.ns)), WithoutOwner())}
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

// start begins with conntrack as a new agent does.
func (d *datapath) start() {
	d.Helper()
	var err error
	d.reg = prometheus.NewRegistry()
	if d.flows, err = conntrack.New(slog.New(slog.NewTextHandler(d.Output(), nil)), d.reg, conntrack.InNetNS(int(d.n.node.ns)), conntrack.Resetting(d.table.End)); err != nil {
		d.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	flows := d.flows
	go func() { done <- flows.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-done; err != nil {
			d.Error(err)
		}
	}
}

func (d *datapath) deleted() float64 { return d.count("hythe_conntrack_deleted_flows_total") }

func (d *datapath) count(name string) float64 {
	families, err := d.reg.Gather()
	if err != nil {
		d.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		var m *dto.Metric
		if f.GetName() == name {
			m = f.GetMetric()[0]
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// udp is the state with these endpoints of a UDP Service at a port of its VIP, ClusterIP and NodePort.
func (d *datapath) udp(port uint16, endpoints ...string) proxy.State {
	s, _ := proxy.Build(snapshot(d.at), "one", proxy.DefaultSettings())
	var eps []netip.AddrPort
	for _, e := range endpoints {
		eps = append(eps, netip.AddrPortFrom(netip.MustParseAddr(e), 8080))
	}
	for f := range s.Frontends {
		if f.Protocol == proxy.UDP {
			delete(s.Frontends, f)
			if !f.NodePort() {
				f.Port = port
			}
			s.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps}
		}
	}
	return s
}

func (d *datapath) set(s proxy.State) {
	d.Helper()
	set1(d.T, d.table, s)
	d.flows.Set(s, true)
}

// TestFlows has clients send from one port for ever while their endpoints come and go.
func TestFlows(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { flows(t, at) })
	}
}

func flows(t *testing.T, at addresses) {
	n := build(t, at)
	vip, ip := fmt.Sprintf(at.vip, datagrams), fmt.Sprintf(at.service, datagrams)
	d := newDatapath(t, n, at)
	without := d.udp(80)
	for f := range without.Frontends {
		if f.Protocol == proxy.UDP {
			delete(without.Frontends, f)
		}
	}
	delete(without.Addresses, netip.MustParseAddr(vip))
	delete(without.Addresses, netip.MustParseAddr(ip))
	all := func(t *testing.T, senders []sender, want string) {
		t.Helper()
		for _, s := range senders {
			s.T = t
			s.comesTo(want)
		}
	}

	d.set(without)
	early := n.client.sender(vip, 80)
	early.hearsWithin(100 * time.Millisecond) // an entry without translation
	senders := []sender{early, n.client.sender(vip, 80), n.client.sender(at.node, 30080+datagrams), n.b.sender(ip, 80), n.node.sender(ip, 80)}
	d.set(d.udp(80, at.a))
	all(t, senders, "a")
	t.Run("replaced", func(t *testing.T) {
		d.set(d.udp(80, at.remote))
		all(t, senders, "remote")
	})
	t.Run("last one gone", func(t *testing.T) {
		d.set(d.udp(80))
		all(t, senders, "refused")
	})
	t.Run("first one back", func(t *testing.T) {
		d.set(d.udp(80, at.a))
		all(t, senders, "a")
	})
	t.Run("missed while the agent was away", func(t *testing.T) {
		d.stop()
		set1(t, d.table, d.udp(80, at.remote))
		if got := senders[1].hears(); got != "a" {
			t.Fatalf("before the agent is back it comes to %q", got)
		}
		d.start()
		d.flows.Set(d.udp(80, at.remote), true)
		all(t, senders, "remote")
	})
	t.Run("another port", func(t *testing.T) {
		d.set(d.udp(81, at.remote))
		senders[2].T = t
		senders[2].comesTo("remote") // the NodePort is the same
		all(t, append(senders[:2:2], senders[3:]...), "refused")
		d.set(d.udp(80, at.remote))
		all(t, senders, "remote")
	})
	t.Run("deleted while the agent was away", func(t *testing.T) {
		d.stop()
		set1(t, d.table, without)
		d.start()
		d.flows.Set(without, true)
		all(t, senders[1:2], "")
	})
	d.set(d.udp(80, at.remote))
	all(t, senders[1:2], "remote")
	t.Run("deleted", func(t *testing.T) {
		d.set(without)
		all(t, senders[1:2], "")
	})
}

// TestFlowsToLivingEndpoints leaves flows alone whose endpoint stays, and those that are nobody's.
func TestFlowsToLivingEndpoints(t *testing.T) {
	testenv.Root(t)
	at := four
	n := build(t, at)
	d := newDatapath(t, n, at)
	vip := fmt.Sprintf(at.vip, datagrams)
	d.set(d.udp(80, at.a, at.b))
	stay, move := []sender{n.b.sender(at.client, 8080), n.client.sender(at.a, 8080)}, []sender{}
	for len(stay) < 6 || len(move) < 3 {
		s := n.client.sender(vip, 80)
		switch s.hears() {
		case "a":
			move = append(move, s)
		case "b":
			stay = append(stay, s)
		}
	}
	others := []string{stay[0].hears(), stay[1].hears()}
	before := d.deleted()
	d.set(d.udp(80, at.b, at.remote))
	for _, s := range move {
		s.eventually("it leaves a", func() bool { got := s.hears(); return got == "b" || got == "remote" })
	}
	d.set(d.udp(80, at.b)) // those that came to remote move once more
	for _, s := range append(move, stay[2:]...) {
		s.comesTo("b")
	}
	for i, s := range stay[:2] {
		if got := s.hears(); got != others[i] {
			t.Errorf("a flow of no Service came to %q, then %q", others[i], got)
		}
	}
	stay[0].eventually("they are counted", func() bool { return int(d.deleted()-before) >= len(move) })
	if got := int(d.deleted() - before); got < len(move) || got > 2*len(move) {
		t.Errorf("%d flows were ended, %d had an endpoint that went", got, len(move))
	}
	// More endpoints, the same again, and a restart end none.
	before = d.deleted()
	d.set(d.udp(80, at.a, at.b))
	d.set(d.udp(80, at.a, at.b))
	first := d.deleted() - before
	d.stop()
	d.start()
	d.flows.Set(d.udp(80, at.a, at.b), true)
	marker := n.client.sender(vip, 80)
	marker.eventually("an answer", func() bool { return marker.hears() != "" })
	for _, s := range stay[2:] {
		if got := s.hears(); got != "b" {
			t.Errorf("a flow to b came to %q", got)
		}
	}
	if first+d.deleted() != 0 {
		t.Errorf("%v and %v flows were ended without need", first, d.deleted())
	}
}

// TestFlowsOfOneFrontend: a Service that has a ClusterIP and nothing else loses its endpoint.
func TestFlowsOfOneFrontend(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		d := newDatapath(t, n, at)
		ip := fmt.Sprintf(at.service, datagrams)
		state := func(endpoint string) proxy.State {
			s := d.udp(80, endpoint)
			for f := range s.Frontends {
				if f.Protocol == proxy.UDP && f.Addr.String() != ip {
					delete(s.Frontends, f)
				}
			}
			return s
		}
		d.set(state(at.a))
		s := n.b.sender(ip, 80)
		for _, to := range []string{at.a, at.remote, at.a, at.remote, at.a} { // an agent that has just started looks at all for a while
			d.set(state(to))
			s.comesTo(map[string]string{at.a: "a", at.remote: "remote"}[to])
		}
	})
}

// TestFlowsToHostPorts: a pod with a UDP host port is replaced by another one, goes, and comes back; at the node's address
// and, from the node itself, at its loopback address.
func TestFlowsToHostPorts(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) {
			n := build(t, at)
			d := newDatapath(t, n, at)
			for _, pod := range []string{"a", "b"} {
				n.node.sysctl("ipv4/conf/hyt"+strings.Repeat(pod, 11)+"/route_localnet", "1") // as the plugin does
			}
			state := func(pods ...string) proxy.State {
				settings := proxy.DefaultSettings()
				for _, pod := range pods {
					settings.HostPorts = append(settings.HostPorts, proxy.HostPort{Protocol: proxy.UDP, Port: 5353, PodPort: 8080,
						Pods: []netip.Addr{netip.MustParseAddr(pod)}})
				}
				s, problems := proxy.Build(snapshot(at), "one", settings)
				if len(problems) > 0 {
					t.Fatal(problems)
				}
				return s
			}
			d.set(state())
			senders := []sender{n.client.sender(at.node, 5353), n.b.sender(at.node, 5353), n.node.sender(at.node, 5353)}
			if at.bits == 32 {
				senders = append(senders, n.node.sender("127.0.0.1", 5353))
			}
			for _, s := range senders {
				s.comesTo("refused")
			}
			for _, pods := range [][]string{{at.a}, {at.b}, {}, {at.a}} {
				want := "refused"
				d.set(state(pods...))
				if len(pods) > 0 {
					want = map[string]string{at.a: "a", at.b: "b"}[pods[0]]
				}
				for _, s := range senders {
					s.comesTo(want)
				}
			}
		})
	}
}

// TestFlowsToTerminating: a flow stays with an endpoint that terminates for as long as it serves, and no longer.
func TestFlowsToTerminating(t *testing.T) {
	testenv.Root(t)
	at := six
	n := build(t, at)
	d := newDatapath(t, n, at)
	vip := fmt.Sprintf(at.vip, datagrams)
	keep := func(endpoint string, keeps ...string) proxy.State {
		s := d.udp(80, endpoint)
		for f, b := range s.Frontends {
			if f.Protocol == proxy.UDP {
				for _, k := range keeps {
					b.Keep = append(b.Keep, netip.AddrPortFrom(netip.MustParseAddr(k), 8080))
				}
				s.Frontends[f] = b
			}
		}
		return s
	}
	// Flows of another frontend, which loses its endpoint at the same time, tell when all were looked at.
	marker := proxy.Frontend{Addr: netip.MustParseAddr(fmt.Sprintf(at.vip, empty)), Protocol: proxy.UDP, Port: 53}
	with := d.udp(80, at.b)
	eps := with.Frontends[proxy.Frontend{Addr: netip.MustParseAddr(vip), Protocol: proxy.UDP, Port: 80}]
	first := keep(at.a)
	first.Frontends[marker] = eps
	d.set(first)
	other := n.client.sender(marker.Addr.String(), 53)
	other.comesTo("b")
	old := []sender{n.client.sender(vip, 80), n.b.sender(vip, 80), n.client.sender(at.node, 30080+datagrams)}
	for _, s := range old {
		s.comesTo("a")
	}
	second := keep(at.remote, at.a)
	second.Frontends[marker] = proxy.Backends{}
	d.set(second)
	n.client.sender(vip, 80).comesTo("remote")
	other.comesTo("refused")
	other.eventually("the look is over", func() bool { return d.deleted() > 0 })
	before := d.deleted()
	for _, s := range old {
		if got := s.hears(); got != "a" {
			t.Errorf("a flow to an endpoint that terminates comes to %q", got)
		}
	}
	d.set(keep(at.remote))
	for _, s := range old {
		s.comesTo("remote")
	}
	if got := d.deleted() - before; int(got) != len(old) {
		t.Errorf("%v flows were ended when the endpoint was gone, want %d", got, len(old))
	}
}
