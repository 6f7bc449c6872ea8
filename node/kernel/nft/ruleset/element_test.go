package ruleset

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
		e := interval(PodRangesSet, netip.MustParsePrefix(prefix))
		got := ""
		if a, ok := netip.AddrFromSlice([]byte(e.End)); ok {
			got = a.String()
		}
		if got != end {
			t.Errorf("%s ends at %q, want %q", prefix, got, end)
		}
	}
}

func TestPickChainNames(t *testing.T) {
	for _, f := range families() {
		for _, p := range Picks() {
			for _, n := range []Lead{{1, 0, 0}, {3, 0, 0}, {64, time.Hour, 0}, {1000, time.Second, 0}, {251, 0, proxy.BySource}, {2039, 0, proxy.BySourcePort}, {251, time.Hour, proxy.BySource}} {
				name := p.chainName(f, n)
				if LeadOf(name) != n {
					t.Errorf("%s leads as %v", name, LeadOf(name))
				}
				c, ok := PickChainNamed(name)
				if !ok || c.Name != name || c.Rules[0].Comment != p.pickChain(f, n).Rules[0].Comment {
					t.Errorf("%s: found %q, %v", name, c.Name, ok)
				}
			}
		}
	}
	for _, name := range []string{"", "pick4", "pick4-", "pick4-0", "pick4-x", "pick5-3", "services", "pick4-03", "pick4-3-", "pick4-3-0", "pick4-3-01", "pick4-3-1-1", "pick4-source-", "pick4-source-0", "pick4-port-source-3", "pick4-hash-3"} {
		if _, ok := PickChainNamed(name); ok {
			t.Errorf("%q is taken for a pick", name)
		}
	}
}
