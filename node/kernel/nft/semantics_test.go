package nft

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// eachFamily runs a test on a network of each family.
func eachFamily(t *testing.T, test func(*testing.T, addresses, topology)) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { test(t, at, build(t, at)) })
	}
}

// of is the test's Service of that number.
func of(s *model.Snapshot, n int) *corev1.Service {
	return s.Services.Get(model.Key{Namespace: "default", Name: fmt.Sprint("service-", n)})
}

// ends are the endpoints of a Service at port 8080 of some addresses, which are on no node in particular.
func ends(s *model.Snapshot, n int, addrs ...string) {
	var eps []model.Endpoint
	for _, a := range addrs {
		eps = append(eps, model.Endpoint{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(a), 8080), Ready: true})
	}
	s.Endpoints = s.Endpoints.With(model.Key{Namespace: "default", Name: fmt.Sprint("service-", n)}, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{
		Name: "http", Protocol: corev1.ProtocolTCP, Endpoints: eps}}})
}

// find asks the kernel of a host for a connection.
func (h host) find(from, to string, port int) (f readback.Found) {
	h.Helper()
	h.do(func() {
		var err error
		f, err = readback.Lookup(readback.Query{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), Protocol: proxy.TCP, Port: uint16(port)})
		h.must(err)
	})
	return f
}

// externalAddr is an address that only spec.externalIPs has.
func externalAddr(at addresses) string {
	return map[int]string{32: "198.51.100.1", 128: "2001:db8:1::1"}[at.bits]
}

// TestExternalIPs reaches Services by spec.externalIPs, also one whose endpoint would answer its client directly.
func TestExternalIPs(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		settings, table, out := proxy.DefaultSettings(), testTable(t, InNetNS(int(n.node.ns))), externalAddr(at)
		s := snapshot(at)
		of(s, clusterPolicy).Spec.ExternalIPs = []string{out}
		state, problems := proxy.Build(s, "one", settings)
		if len(problems) != 1 || problems[0].Reason != "ExternalIPsNotServed" {
			t.Errorf("problems %v", problems)
		}
		set1(t, table, state)
		if f := n.node.find(at.client, out, 80); f.Verdict != readback.NotService {
			t.Errorf("while they are off: %+v", f)
		}
		n.client.dropped(out, 80)

		settings.ExternalIPs = true
		of(s, localPolicy).Spec.ExternalIPs = []string{out}
		of(s, localPolicy).Spec.Ports[0].Port = 81
		of(s, onlyA).Spec.ExternalIPs = []string{out}
		of(s, onlyA).Spec.Ports[0].Port = 82
		of(s, onlyA).Spec.LoadBalancerSourceRanges = []string{at.ranges[1]}
		ends(s, onlyA, at.client)
		of(s, empty).Spec.ExternalIPs = []string{out}
		of(s, empty).Spec.Ports[0].Port = 83
		if state, problems = proxy.Build(s, "one", settings); len(problems) > 0 {
			t.Error(problems)
		}
		set1(t, table, state)
		n.client.refused("tcp", out, 83)
		n.client.answers("tcp", out, 80, map[string]string{"a": at.client, "b": at.client, "remote": at.overlay})
		n.client.answers("tcp", out, 81, map[string]string{"a": at.client})
		n.b.answers("tcp", out, 81, map[string]string{"a": at.b, "remote": at.b})
		// The endpoint is beside the client: without an address of the node its answer would not come back this way.
		n.client.answers("tcp", out, 82, map[string]string{"client": at.node})
		if f := n.node.find(at.client, out, 82); len(f.Endpoints) != 1 || f.Endpoints[0].Rule != "by an external address" {
			t.Errorf("read back: %+v", f)
		}
		// The address itself is not the Service's: its other ports are left alone.
		if f := n.node.find(at.client, out, 84); f.Verdict != readback.NotService {
			t.Errorf("another port: %+v", f)
		}
	})
}

// TestServiceRanges sends to addresses that no Service has.
func TestServiceRanges(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		table := testTable(t, InNetNS(int(n.node.ns)))
		free, later := fmt.Sprintf(at.service, 200), fmt.Sprintf(at.service, 201)
		stray := n.client.watch([]string{free, later})
		s := snapshot(at)
		setBuilt := func(cidrs ...string) {
			t.Helper()
			s.ServiceCIDRs = map[string]*networkingv1.ServiceCIDR{}
			for _, c := range cidrs {
				s.ServiceCIDRs[c] = &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: c}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{c}}}
			}
			state, _ := proxy.Build(s, "one", proxy.DefaultSettings())
			set1(t, table, state)
		}
		cidr := map[int]string{32: "10.96.0.0/16", 128: "fd10::/112"}[at.bits]
		setBuilt(cidr, map[int]string{32: "10.96.0.0/12", 128: "fd10::/64"}[at.bits])
		for from, h := range map[string]host{at.client: n.client, at.a: n.a, at.node: n.node} {
			n.node.counts(ruleset.Unallocated, func() { h.dropped(free, 80) })
			if f := n.node.find(from, free, 80); f.Verdict != readback.Dropped || f.Reason != ruleset.Unallocated {
				t.Errorf("read back from %s: %+v", from, f)
			}
		}
		// What Services have works as before: ports, refusals, and connections of pods to anything else.
		n.client.refused("tcp", fmt.Sprintf(at.service, clusterPolicy), 81)
		n.client.refused("tcp", fmt.Sprintf(at.service, empty), 80)
		n.a.answers("tcp", fmt.Sprintf(at.service, onlyA), 80, map[string]string{"a": at.hairpin})
		n.a.answers("tcp", at.client, 8080, map[string]string{"client": at.node})
		// A Service that comes has its address at once.
		service(s, 201, false, corev1.ProtocolTCP, s.Endpoints.Get(model.Key{Namespace: "default", Name: fmt.Sprint("service-", onlyA)}).Ports[0].Endpoints, at)
		setBuilt(cidr)
		n.b.answers("tcp", later, 80, map[string]string{"a": at.b})
		// One that another proxy serves is left to that.
		of(s, 201).Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
		setBuilt(cidr)
		if got := stray.Load(); got != 0 {
			t.Errorf("%d packets to addresses of no Service left the node", got)
		}
		n.b.dropped(later, 80) // by the client, which does not have it
		n.client.eventually("the packet reaches the next router", func() bool { return stray.Load() > 0 })
		if f := n.node.find(at.b, later, 80); f.Verdict != readback.NotService {
			t.Errorf("of another proxy: %+v", f)
		}
		before := stray.Load()
		setBuilt()
		n.b.dropped(free, 80)
		n.client.eventually("without ServiceCIDRs packets are forwarded", func() bool { return stray.Load() > before })
	})
}

// TestNodePortSourceRanges opens and closes NodePorts for their clients. A Service without NodePorts works by its VIP.
func TestNodePortSourceRanges(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		table, settings := testTable(t, InNetNS(int(n.node.ns))), proxy.DefaultSettings()
		settings.NodePortSourceRanges = true
		port := 30080 + onlyA
		for _, c := range []struct {
			ranges    []string
			client, b bool
		}{
			{[]string{at.client + "/" + fmt.Sprint(at.bits)}, true, false},
			{[]string{at.ranges[0], at.b + "/" + fmt.Sprint(at.bits)}, false, true},
			{[]string{everything(at.bits)}, true, true},
			{[]string{"nonsense"}, false, false},
			{nil, true, true},
		} {
			s := snapshot(at)
			of(s, onlyA).Spec.LoadBalancerSourceRanges = c.ranges
			without := of(s, clusterPolicy)
			without.Spec.AllocateLoadBalancerNodePorts, without.Spec.Ports[0].NodePort = new(bool), 0
			state, _ := proxy.Build(s, "one", settings)
			set1(t, table, state)
			for _, from := range []struct {
				host
				addr  string
				allow bool
			}{{n.client, at.client, c.client}, {n.b, at.b, c.b}} {
				if from.allow {
					from.answers("tcp", at.node, port, map[string]string{"a": from.addr})
				} else {
					n.node.counts(ruleset.SourceRange, func() { from.dropped(at.node, port) })
				}
				if f := n.node.find(from.addr, at.node, port); (f.Verdict == readback.Forwarded) != from.allow || from.allow == (f.Reason == ruleset.SourceRange) {
					t.Errorf("%q, from %s: %+v", c.ranges, from.addr, f)
				}
			}
			// Other NodePorts, the ClusterIP, and the same port of other hosts are open.
			n.client.answers("tcp", at.node, 30080+localPolicy, map[string]string{"a": at.client})
			n.b.answers("tcp", fmt.Sprintf(at.service, onlyA), 80, map[string]string{"a": at.b})
			n.client.answers("tcp", fmt.Sprintf(at.vip, clusterPolicy), 80, map[string]string{"a": at.client, "b": at.client, "remote": at.overlay})
		}
	})
}

// TestNodePortAddresses has NodePorts at some addresses of the node. At the others a process of the node may have the port.
func TestNodePortAddresses(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		n.node.serve(at.node)
		table := testTable(t, InNetNS(int(n.node.ns)))
		s := snapshot(at)
		of(s, onlyA).Spec.Ports[0].NodePort = 8080
		of(s, empty).Spec.Ports[0].NodePort = 8081
		set := func(words ...string) {
			t.Helper()
			settings := proxy.DefaultSettings()
			var err error
			if settings.NodePortRanges, settings.NodePortPrimary, err = proxy.ParseNodePortAddresses(words); err != nil {
				t.Fatal(err)
			}
			state, _ := proxy.Build(s, "one", settings)
			set1(t, table, state)
		}
		toA, itself := map[string]string{"a": at.client}, map[string]string{"node": at.client}
		more := netip.MustParseAddr(at.node).Next().String()
		with := func(addr string, bits int) string {
			p, _ := netip.MustParseAddr(addr).Prefix(bits)
			return p.String()
		}
		set()
		n.client.answers("tcp", at.node, 8080, toA)
		set(with(at.overlay, at.bits))
		n.client.answers("tcp", at.node, 8080, itself)
		n.client.answers("tcp", at.overlay, 8080, toA)
		n.client.refused("tcp", at.overlay, 8081)
		if f := n.node.find(at.client, at.node, 8080); f.Verdict != readback.NotService {
			t.Errorf("another address: %+v", f)
		}
		set("primary")
		n.client.answers("tcp", at.node, 8080, toA)
		if f := n.node.find(at.client, at.overlay, 8080); f.Verdict != readback.NotService {
			t.Errorf("not the primary address: %+v", f)
		}
		// A range counts for addresses that the node gets later, without another Set.
		set(with(at.node, at.bits-8))
		n.node.address("eth0", more, at.bits)
		n.client.answers("tcp", at.node, 8080, toA)
		// IPv6 has a new address some moments later.
		n.node.eventually(more+" is the node's", func() bool { return n.node.find(at.client, more, 8080).NodePort })
		n.client.answers("tcp", more, 8080, toA)
		// No range of this family: no NodePort.
		set(map[int]string{32: "2001:db8::/32", 128: "192.0.2.0/24"}[at.bits])
		n.client.answers("tcp", at.node, 8080, itself)
	})
}

// TestOverlappingRanges goes from ranges to others that overlap them: the kernel takes no range while one is there that it
// overlaps.
func TestOverlappingRanges(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	restricted := proxy.Frontend{Addr: netip.MustParseAddr("203.0.113.1"), Protocol: proxy.TCP, Port: 80}
	nodePort := proxy.Frontend{Addr: netip.IPv4Unspecified(), Protocol: proxy.TCP, Port: 30080}
	for _, ranges := range []string{"10.0.0.0/8", "10.1.0.0/16 10.2.0.0/16", "10.1.0.0/16", "10.1.1.0/24 10.1.2.0/23", "0.0.0.0/0", "10.1.1.1/32", "10.1.1.0/31", "10.0.0.0/9 10.128.0.0/9", "10.0.0.0/8"} {
		s := services(3)
		clear(s.PodRanges)
		s.ServiceRanges, s.NodePortRanges = proxy.Set[netip.Prefix]{}, proxy.Set[netip.Prefix]{}
		var sources []netip.Prefix
		for r := range strings.FieldsSeq(ranges) {
			p := netip.MustParsePrefix(r)
			sources = append(sources, p)
			for _, set := range []proxy.Set[netip.Prefix]{s.PodRanges, s.ServiceRanges, s.NodePortRanges} {
				set[p] = struct{}{}
			}
		}
		for _, f := range []proxy.Frontend{restricted, nodePort} {
			eps := endpoints("10.244.0.1", 2)
			s.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps, Sources: sources}
		}
		if err := table.Set(t.Context(), s); err != nil {
			t.Errorf("to %s: %v", ranges, err)
		}
		check(t, s)
		got, err := readback.Frontends()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []proxy.Frontend{restricted, nodePort} {
			if !got[f].Equal(s.Frontends[f]) {
				t.Errorf("%s reads back as %+v, want %+v", f, got[f], s.Frontends[f])
			}
		}
	}
}

// TestInternalLocal drops what a Service must not send to other nodes, refuses it when they have no endpoints either, and
// serves it where there is one.
func TestInternalLocal(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		table, s, local := testTable(t, InNetNS(int(n.node.ns))), snapshot(at), corev1.ServiceInternalTrafficPolicyLocal
		of(s, localAway).Spec.InternalTrafficPolicy = &local
		ip := fmt.Sprintf(at.service, localAway)
		key := model.Key{Namespace: "default", Name: fmt.Sprint("service-", localAway)}
		set := func() {
			t.Helper()
			state, _ := proxy.Build(s, "one", proxy.DefaultSettings())
			set1(t, table, state)
			checkFrontendsAt(t, n.node, state)
		}
		set()
		for from, h := range map[string]host{at.b: n.b, at.client: n.client, at.node: n.node} {
			n.node.counts(ruleset.NoLocalEndpoint, func() { h.dropped(ip, 80) })
			if f := n.node.find(from, ip, 80); f.Verdict != readback.Dropped || f.Reason != ruleset.NoLocalEndpoint {
				t.Errorf("read back from %s: %+v", from, f)
			}
		}
		n.b.answers("tcp", fmt.Sprintf(at.vip, localAway), 80, map[string]string{"remote": at.b}) // the other policy
		eps := s.Endpoints.Get(key).Ports[0].Endpoints
		here := model.Endpoint{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(at.a), 8080), Node: "one", Ready: true}
		s.Endpoints = s.Endpoints.With(key, &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Name: "http", Protocol: corev1.ProtocolTCP, Endpoints: []model.Endpoint{here, eps[0]}}}})
		set()
		n.b.answers("tcp", ip, 80, map[string]string{"a": at.b})
		s.Endpoints = s.Endpoints.Without(key)
		set()
		n.b.refused("tcp", ip, 80)
	})
}

// checkFrontendsAt is checkFrontends in a host.
func checkFrontendsAt(t *testing.T, h host, want proxy.State) {
	t.Helper()
	h.do(func() {
		got, err := readback.Frontends()
		h.must(err)
		for f, b := range want.Frontends {
			if !got[f].Equal(b) {
				t.Errorf("%s: %+v was read, %+v asked for", f, got[f], b)
			}
		}
	})
}

// TestHints sends to endpoints of the node's own zone.
func TestHints(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		s := snapshot(at)
		s.Nodes["one"].Labels = map[string]string{corev1.LabelTopologyZone: "here"}
		eps := s.Endpoints.Get(model.Key{Namespace: "default", Name: fmt.Sprint("service-", clusterPolicy)}).Ports[0].Endpoints
		eps[0].Hints, eps[1].Hints, eps[2].Hints = &model.Hints{Zones: []string{"here"}}, &model.Hints{Zones: []string{"there"}}, &model.Hints{Zones: []string{"there", "here"}}
		state, _ := proxy.Build(s, "one", proxy.DefaultSettings())
		set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
		n.client.answers("tcp", fmt.Sprintf(at.vip, clusterPolicy), 80, map[string]string{"a": at.client, "remote": at.overlay})
		n.b.answers("tcp", fmt.Sprintf(at.service, clusterPolicy), 80, map[string]string{"a": at.b, "remote": at.b})
	})
}

// TestEndpointIsTheNode serves by a process in the node's own network.
func TestEndpointIsTheNode(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		n.node.serve(at.node)
		s := snapshot(at)
		ends(s, onlyA, at.node)
		s.Endpoints.Get(model.Key{Namespace: "default", Name: fmt.Sprint("service-", onlyA)}).Ports[0].Endpoints[0].Node = "one"
		of(s, onlyA).Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		state, _ := proxy.Build(s, "one", proxy.DefaultSettings())
		set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
		for from, h := range map[string]host{at.client: n.client, at.a: n.a, at.node: n.node} {
			h.answers("tcp", fmt.Sprintf(at.vip, onlyA), 80, map[string]string{"node": from})
			h.answers("tcp", fmt.Sprintf(at.service, onlyA), 80, map[string]string{"node": from})
			h.answers("tcp", at.node, 30080+onlyA, map[string]string{"node": from})
		}
	})
}

// TestUntracked leaves packets alone that rules of somebody else keep from translation, as those of a DNS cache that has the
// ClusterIP of the DNS Service on each node.
func TestUntracked(t *testing.T) {
	needNft(t)
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		dns := fmt.Sprintf(at.service, onlyA)
		n.node.address("lo", dns, at.bits)
		n.node.serve(dns)
		s := snapshot(at)
		cidr := map[int]string{32: "10.96.0.0/16", 128: "fd10::/112"}[at.bits]
		s.ServiceCIDRs = map[string]*networkingv1.ServiceCIDR{"kubernetes": {Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}}}
		settings := proxy.DefaultSettings()
		settings.LocalAddresses = []netip.Addr{netip.MustParseAddr(dns)}
		state, problems := proxy.Build(s, "one", settings)
		if len(problems) > 0 || len(state.ServiceRanges) != 1 {
			t.Errorf("ranges %v, problems %v", state.ServiceRanges, problems)
		}
		set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
		n.a.refused("tcp", dns, 8080)
		ip := map[int]string{32: "ip", 128: "ip6"}[at.bits]
		n.node.do(func() {
			for _, command := range []string{
				"add table " + ip + " cache",
				"add chain " + ip + " cache raw { type filter hook prerouting priority raw; }", "add chain " + ip + " cache out { type filter hook output priority raw; }",
				"add rule " + ip + " cache raw " + ip + " daddr " + dns + " notrack", "add rule " + ip + " cache out " + ip + " saddr " + dns + " notrack",
			} {
				if err := nftTool(t, strings.Fields(command)...); err != nil {
					t.Fatal(err)
				}
			}
		})
		n.a.answers("tcp", dns, 8080, map[string]string{"node": at.a})
	})
}
