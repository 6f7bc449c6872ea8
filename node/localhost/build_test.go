package localhost

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

func ports(addrs ...string) (out []netip.AddrPort) {
	for _, a := range addrs {
		out = append(out, netip.MustParseAddrPort(a))
	}
	return out
}

func TestBuild(t *testing.T) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	eps := ports("10.244.1.2:8080", "10.244.1.3:8080")
	plain := proxy.Backends{Outside: eps, Inside: eps}
	sources := func(p ...string) (out []netip.Prefix) {
		out = []netip.Prefix{}
		for _, s := range p {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	s := proxy.State{Owners: map[proxy.Frontend]model.Key{}, NodePortRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("0.0.0.0/0"): {}},
		Frontends: map[proxy.Frontend]proxy.Backends{
			{Addr: any4, Protocol: proxy.TCP, Port: 30001}: plain,
			{Addr: any4, Protocol: proxy.UDP, Port: 30001}: {Outside: eps[:1], Inside: eps[:1], Affinity: time.Hour},
			// All others are not served: another family's, without endpoints, only from elsewhere, of no Service.
			{Addr: any6, Protocol: proxy.TCP, Port: 30001}:                             {Inside: ports("[fd01::2]:8080")},
			{Addr: any4, Protocol: proxy.SCTP, Port: 30001}:                            plain,
			{Addr: any4, Protocol: proxy.TCP, Port: 30002}:                             {},
			{Addr: any4, Protocol: proxy.TCP, Port: 30003}:                             {Inside: eps, Sources: sources("192.0.2.0/24")},
			{Addr: any4, Protocol: proxy.TCP, Port: 30004}:                             {Inside: eps, Sources: sources("127.0.0.0/8")},
			{Addr: any4, Protocol: proxy.TCP, Port: 30005}:                             plain,
			{Addr: netip.MustParseAddr("127.0.0.1"), Protocol: proxy.TCP, Port: 30005}: plain, // a host port
			{Addr: any4, Protocol: proxy.TCP, Port: 8080}:                              plain, // a host port
			{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: proxy.TCP, Port: 80}:    plain,
		}}
	for f := range s.Frontends {
		if f.Port != 8080 {
			s.Owners[f] = model.Key{Namespace: "default", Name: "web"}
		}
	}
	var got []string
	for l, b := range Build(s) {
		got = append(got, fmt.Sprint(l, " ", len(b.Endpoints), " ", b.Sticky))
	}
	slices.Sort(got)
	want := "127.0.0.1:30001 tcp 2 false, 127.0.0.1:30001 udp 1 true, 127.0.0.1:30004 tcp 2 false"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

// TestUpdate: a change makes of what was served what Build makes of the whole.
func TestUpdate(t *testing.T) {
	eps := ports("10.244.1.2:8080", "10.244.1.3:8080", "10.244.1.4:8080")
	s := proxy.State{Owners: map[proxy.Frontend]model.Key{}, Frontends: map[proxy.Frontend]proxy.Backends{},
		NodePortRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("0.0.0.0/0"): {}}}
	var all []proxy.Frontend
	for i := range 6 {
		f := proxy.Frontend{Addr: netip.IPv4Unspecified(), Protocol: proxy.TCP, Port: uint16(30000 + i)}
		if i == 5 {
			f.Addr = netip.MustParseAddr("10.96.0.1")
		}
		s.Frontends[f], s.Owners[f] = proxy.Backends{Inside: eps[:i%3]}, model.Key{Name: "web"}
		all = append(all, f)
	}
	s.Frontends[proxy.Frontend{Addr: netip.MustParseAddr("127.0.0.1"), Protocol: proxy.TCP, Port: 30004}] = proxy.Backends{Inside: eps[:1]}
	have := Build(s)
	for i := range 60 {
		f := all[i%len(all)]
		is := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{f: {Inside: eps[:i%4]}}, Owners: map[proxy.Frontend]model.Key{f: {Name: "web"}}}
		c := proxy.Change{Gone: is, Come: is}
		if i%7 == 0 {
			c.Come = proxy.State{}
		}
		next, changed := update(have, baseOf(s), c)
		if f.Port == 30005 && changed || f.Port != 30005 && !changed && i%7 != 0 {
			t.Errorf("a change of %s counts: %v", f, changed)
		}
		now := s
		now.Frontends, now.Owners = maps.Clone(s.Frontends), maps.Clone(s.Owners)
		c.Apply(now)
		if s = now; !reflect.DeepEqual(next, Build(s)) {
			t.Fatalf("after a change of %s: %v, want %v", f, next, Build(s))
		}
		have = next
	}
}

// TestChoose: a sticky Service keeps its endpoint when others come or go, and others are spread.
func TestChoose(t *testing.T) {
	eps := ports("10.244.1.2:80", "10.244.1.3:80", "10.244.1.4:80")
	b := Backends{Endpoints: eps, Sticky: true}
	first, seen := b.choose(), map[netip.AddrPort]bool{}
	for range 100 {
		if b.choose() != first {
			t.Fatal("it does not stay")
		}
		seen[Backends{Endpoints: eps}.choose()] = true
	}
	if len(seen) != 3 {
		t.Errorf("100 connections come to %v", seen)
	}
	rest := slices.DeleteFunc(slices.Clone(eps), func(e netip.AddrPort) bool { return e == first })
	if got := (Backends{Endpoints: rest, Sticky: true}).choose(); got == first || !slices.Contains(rest, got) {
		t.Errorf("without %s it comes to %s", first, got)
	}
}

// TestChooseOnce: the endpoint of a sticky Service is worked out once, and anew when the Service has others.
func TestChooseOnce(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	web := Listener{netip.MustParseAddrPort("127.0.0.1:30001"), proxy.TCP}
	many := proxy.Backends{}
	for i := range 2000 {
		many.Inside = append(many.Inside, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 80))
	}
	begin := func() netip.AddrPort {
		t.Helper()
		c, ok := s.begin(web, func() {})
		if !ok {
			t.Fatal("no endpoint")
		}
		s.over(c)
		return c.endpoint
	}
	s.apply(State{web: {Endpoints: many.Inside, Sticky: true}})
	first := begin()
	if n := testing.AllocsPerRun(10, func() { begin() }); n > 3 { // the table of slots takes some, of a megabyte
		t.Errorf("each connection takes %v allocations", n)
	}
	if again := begin(); again != first {
		t.Errorf("it comes to %s, and then to %s", first, again)
	}
	rest := slices.DeleteFunc(slices.Clone(many.Inside), func(e netip.AddrPort) bool { return e == first })
	s.apply(State{web: {Endpoints: rest, Sticky: true}})
	if next := begin(); next == first || next != (Backends{Endpoints: rest, Sticky: true}).choose() {
		t.Errorf("without %s it comes to %s", first, next)
	}
}
