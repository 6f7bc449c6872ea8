package nft

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"hythe.dev/hythe/node/proxy"
)

func TestArrange(t *testing.T) {
	for _, c := range []struct{ now, values, want []string }{
		{nil, []string{"a", "b"}, []string{"a", "b"}},
		{[]string{"a", "b", "c"}, []string{"a", "b", "c"}, []string{"a", "b", "c"}},
		{[]string{"a", "b", "c"}, []string{"b", "c"}, []string{"c", "b"}}, // the last moves into the hole
		{[]string{"c", "a"}, []string{"a", "b", "c"}, []string{"c", "a", "b"}},
		{[]string{"a", "b"}, []string{"x", "y"}, []string{"x", "y"}},
		{[]string{"a", "b", "c"}, nil, []string{}},
	} {
		got := arrange(c.values, func(i int) string {
			if i < len(c.now) {
				return c.now[i]
			}
			return ""
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("from %v, %v becomes %v, want %v", c.now, c.values, got, c.want)
		}
	}
}

func TestInterval(t *testing.T) {
	for prefix, end := range map[string]string{
		"10.244.1.0/24":   "10.244.2.0",
		"10.244.255.0/24": "10.245.0.0",
		"10.0.0.7/32":     "10.0.0.8",
		"255.255.0.0/16":  "",
		"0.0.0.0/0":       "",
		"fd00::/64":       "fd00:0:0:1::",
		"ffff::/16":       "",
	} {
		e := interval(netip.MustParsePrefix(prefix))
		got := ""
		if a, ok := netip.AddrFromSlice([]byte(e.end)); ok {
			got = a.String()
		}
		if got != end {
			t.Errorf("%s ends at %q, want %q", prefix, got, end)
		}
	}
}

func TestPickChainNames(t *testing.T) {
	for _, f := range families() {
		for _, p := range picks() {
			for _, n := range []lead{{1, 0}, {3, 0}, {64, time.Hour}, {1000, time.Second}} {
				name := p.chainName(f, n)
				if leadOf(name) != n {
					t.Errorf("%s leads as %v", name, leadOf(name))
				}
				c, ok := pickChainNamed(name)
				if !ok || c.name != name || c.rules[0].comment != p.pickChain(f, n).rules[0].comment {
					t.Errorf("%s: found %q, %v", name, c.name, ok)
				}
			}
		}
	}
	for _, name := range []string{"", "pick4", "pick4-", "pick4-0", "pick4-x", "pick5-3", "services", "pick4-03", "pick4-3-", "pick4-3-0", "pick4-3-01", "pick4-3-1-1"} {
		if _, ok := pickChainNamed(name); ok {
			t.Errorf("%q is taken for a pick", name)
		}
	}
}

// TestOrder looks at the order in which the parts of a Service come and go.
func TestOrder(t *testing.T) {
	byName := map[string]set{}
	for _, s := range sets() {
		byName[s.name] = s
	}
	addr := netip.MustParseAddr("10.96.0.1")
	f := proxy.Frontend{Addr: addr, Protocol: proxy.TCP, Port: 80}
	eps := endpoints("10.244.1.2", 2)
	with := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{f: {Outside: eps, Inside: eps}},
		Addresses: proxy.Set[netip.Addr]{addr: {}}}
	names := func(changes []change) []string {
		order(changes, byName)
		var out []string
		for _, c := range changes {
			out = append(out, c.set)
		}
		return slices.Compact(out)
	}
	there := encode(with, nil)
	if got := names(difference(nil, nil, there)); !slices.Equal(got, []string{"endpoints4", "frontends4", "addresses4"}) {
		t.Errorf("a Service comes as %v", got)
	}
	if got := names(difference(there, there, nil)); !slices.Equal(got, []string{"frontends4", "addresses4", "endpoints4"}) {
		t.Errorf("a Service goes as %v", got)
	}
}

// FuzzEach reads attributes as the kernel, or anybody who claims to be it, may send them.
func FuzzEach(f *testing.F) {
	f.Add(newTable(tableName, "x", 0).Data[4:])
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		each(b, func(_ uint16, data []byte) { total += len(data) + 4 })
		if total > len(b) {
			t.Errorf("%d bytes of attributes in %d", total, len(b))
		}
	})
}
