package nft

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// TestLookup asks the kernel what TestPackets sees happen.
func TestLookup(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { lookups1(t, at) })
	}
}

func lookups1(t *testing.T, at addresses) {
	n := build(t, at)
	state, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
	set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
	addr := func(s string) (a netip.Addr) {
		if s != "" {
			a = netip.MustParseAddr(s)
		}
		return a
	}
	ask := func(q readback.Query) (f readback.Found) {
		t.Helper()
		n.node.do(func() {
			var err error
			if f, err = readback.Lookup(q); err != nil {
				t.Fatal(err)
			}
		})
		if _, err := json.Marshal(f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	ip := func(i int) string { return fmt.Sprintf(at.service, i) }
	vip := func(i int) string { return fmt.Sprintf(at.vip, i) }
	for _, c := range []struct {
		from, to string
		port     uint16
		source   string
		verdict  string
		want     []string // endpoints, with how they see the client where it is masqueraded
		inside   bool
	}{
		{at.client, vip(clusterPolicy), 80, readback.FromOutside, readback.Forwarded, []string{at.a, at.b, at.remote + " by a ClusterIP or VIP"}, false},
		{at.client, at.node, 30080 + clusterPolicy, readback.FromOutside, readback.Forwarded, []string{at.a, at.b, at.remote + " by a NodePort"}, false},
		{at.client, vip(localPolicy), 80, readback.FromOutside, readback.Forwarded, []string{at.a}, false},
		{at.b, vip(localPolicy), 80, readback.FromPod, readback.Forwarded, []string{at.a, at.remote}, true},
		{"", vip(localAway), 80, readback.FromNode, readback.Forwarded, []string{at.remote + " by a ClusterIP or VIP"}, true},
		{at.node, vip(localAway), 80, readback.FromNode, readback.Forwarded, []string{at.remote + " by a ClusterIP or VIP"}, true},
		{at.client, vip(localAway), 80, readback.FromOutside, readback.Dropped, nil, false},
		{at.client, at.node, 30080 + localAway, readback.FromOutside, readback.Dropped, nil, false},
		{at.b, at.node, 30080 + localAway, readback.FromPod, readback.Forwarded, []string{at.remote}, true},
		{at.a, ip(onlyA), 80, readback.FromPod, readback.Forwarded, []string{at.a + " pod to itself"}, false},
		{at.remote, ip(onlyA), 80, readback.FromPod, readback.Forwarded, []string{at.a}, false},
		{at.remote, vip(localAway), 80, readback.FromPod, readback.Forwarded, []string{at.remote + " pod elsewhere by a VIP"}, true},
		{at.remote, at.node, 30080 + localAway, readback.FromPod, readback.Forwarded, []string{at.remote + " pod elsewhere by a NodePort"}, true},
		{at.client, ip(empty), 80, readback.FromOutside, readback.Refused, nil, false},
		{at.client, at.node, 30080 + empty, readback.FromOutside, readback.Refused, nil, false},
		{at.client, vip(clusterPolicy), 81, readback.FromOutside, readback.Refused, nil, false},
		{at.client, at.node, 8080, readback.FromOutside, readback.NotService, nil, false},
		{at.client, at.a, 8080, readback.FromOutside, readback.NotService, nil, false},
		{at.client, at.client, 30080 + clusterPolicy, readback.FromOutside, readback.NotService, nil, false},
	} {
		f := ask(readback.Query{From: addr(c.from), To: addr(c.to), Protocol: proxy.TCP, Port: c.port})
		var got []string
		for _, e := range f.Endpoints {
			got = append(got, strings.TrimSpace(e.Address.Addr().String()+" "+e.Rule))
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if f.Source != c.source || f.Verdict != c.verdict || !slices.Equal(got, c.want) || f.Inside != c.inside {
			t.Errorf("%s to %s %d: %+v\nwant %s from %s to %q", c.from, c.to, c.port, f, c.verdict, c.source, c.want)
		}
	}
	if f := ask(readback.Query{From: addr(at.client), To: addr(vip(1)), Ping: true}); f.Verdict != readback.Answered || f.AnsweredBy != addr(at.node) {
		t.Errorf("ping of a VIP: %+v", f)
	}
	if f := ask(readback.Query{From: addr(at.client), To: addr(ip(1)), Ping: true}); f.Verdict != readback.Refused {
		t.Errorf("ping of a ClusterIP: %+v", f)
	}
	if f := ask(readback.Query{From: addr(at.client), To: addr(vip(datagrams)), Protocol: proxy.UDP, Port: 80}); len(f.Endpoints) != 2 ||
		f.Outside.Chain != "pick"+ruleset.Digit(addr(at.a))+"-2" || f.Outside.Element != vip(datagrams)+" . 17 . 80" {
		t.Errorf("UDP: %+v %+v", f, f.Outside)
	}
}

// TestLookupSeesTheKernel has somebody else change the table: what is read is what is there.
func TestLookupSeesTheKernel(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	find := func() readback.Found {
		f, err := readback.Lookup(readback.Query{From: netip.MustParseAddr("192.0.2.1"), To: netip.MustParseAddr("10.96.0.7"), Protocol: proxy.TCP, Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if s, err := readback.Table(); err != nil || s.Present {
		t.Errorf("without a table: %+v, %v", s, err)
	}
	if f := find(); f.Table || f.Verdict != readback.NotService {
		t.Errorf("without a table: %+v", f)
	}
	set1(t, testTable(t, WithoutOwner()), services(600))
	s, err := readback.Table()
	if err != nil || !s.Whole || !s.Current || s.Owned || s.Elements["frontends4"] != 600 || s.Elements["endpoints4"] != 1800 ||
		s.Elements["pod-ranges4"] != 1 || s.Skeleton != ruleset.Version() || s.Chains != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if f := find(); len(f.Outside.Endpoints) != 3 || len(f.Outside.Missing) != 0 {
		t.Errorf("%+v", f.Outside)
	}
	for _, step := range []struct {
		harm string
		ok   func(readback.Found) bool
	}{
		{"delete element inet hythe endpoints4 { 10.96.0.7 . tcp . 80 . 1 }", func(f readback.Found) bool {
			return f.Verdict == readback.Forwarded && slices.Equal(f.Outside.Missing, []int{1}) && len(f.Endpoints) == 2
		}},
		{"delete element inet hythe frontends4 { 10.96.0.7 . tcp . 80 }", func(f readback.Found) bool { return f.Verdict == readback.Refused && f.Address }},
		{"delete element inet hythe addresses4 { 10.96.0.7 }", func(f readback.Found) bool { return f.Verdict == readback.NotService && !f.Address }},
		{"flush chain inet hythe services4", func(readback.Found) bool { s, err := readback.Table(); return err == nil && s.Present && !s.Whole }},
	} {
		if err := nftTool(t, strings.Fields(step.harm)...); err != nil {
			t.Fatal(err)
		}
		if f := find(); !step.ok(f) {
			t.Errorf("after %s: %+v %+v", step.harm, f, f.Outside)
		}
	}
}

// TestSummaryOfOwned reads who owns the table.
func TestSummaryOfOwned(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	if table.plain {
		t.Skip("the kernel has no persistent table owner")
	}
	set1(t, table, services(1))
	if s, err := readback.Table(); err != nil || !s.Owned || !s.Persist || s.Owner != table.conn.PID() {
		t.Errorf("%+v, %v", s, err)
	}
	_ = table.Close()
	if s, err := readback.Table(); err != nil || s.Owned && s.Owner != 0 || !s.Present {
		t.Errorf("after its owner's end: %+v, %v", s, err)
	}
}

// TestLookupOfManyEndpoints reads more of them than one answer has.
func TestLookupOfManyEndpoints(t *testing.T) {
	testenv.NetNS(t)
	s := services(1)
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.0"), Protocol: proxy.TCP, Port: 80}
	eps := endpoints("10.244.0.1", 1000)
	s.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps}
	set1(t, testTable(t), s)
	found, err := readback.Lookup(readback.Query{To: f.Addr, Protocol: f.Protocol, Port: f.Port})
	if err != nil || len(found.Outside.Missing) > 0 {
		t.Fatalf("%v, missing %v", err, found.Outside.Missing)
	}
	got := slices.Clone(found.Outside.Endpoints)
	slices.SortFunc(got, netip.AddrPort.Compare)
	if !slices.Equal(got, eps) {
		t.Errorf("%d endpoints: %v", len(got), got)
	}
}
