package conntrack

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// TestLingering has connections to a pod by ways that are no more: its Service has another targetPort by now, or lost a frontend. They are
// asked for when the pod goes, and not before.
func TestLingering(t *testing.T) {
	const ip, vip, node, dns = "10.96.0.10:80", "203.0.113.1:80", "0.0.0.0:30080", "10.96.0.10:53"
	const one, moved, other = "10.244.1.2:80", "10.244.1.2:8080", "10.244.1.3:8080"
	web := model.Key{Name: "web"}
	type step map[string][]string // frontends with their endpoints; "keep" for a Service that resets nothing
	state := func(frontends step) proxy.State {
		s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Owners: map[proxy.Frontend]model.Key{},
			NodePortRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("0.0.0.0/0"): {}}}
		_, keep := frontends["keep"]
		for name, endpoints := range frontends {
			protocol := proxy.TCP
			switch name {
			case "keep":
				continue
			case dns:
				protocol = proxy.UDP
			}
			b := list(endpoints...)
			b.Reset = !keep && protocol == proxy.TCP
			s.Frontends[front(protocol, name)], s.Owners[front(protocol, name)] = b, web
		}
		return s
	}
	local := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.168.1.11") }
	for name, c := range map[string]struct {
		steps []step
		ends  string // connections to one that end with the last step, by where they went
	}{
		"the targetPort changed":    {[]step{{ip: {one}}, {ip: {moved, other}}, {ip: {other}}}, ip},
		"the pod is there":          {[]step{{ip: {one}}, {ip: {moved, other}}, {ip: {moved}}}, ""},
		"it was the last one":       {[]step{{ip: {one}}, {ip: {moved}}, {ip: {}}}, ip},
		"the Service goes":          {[]step{{ip: {one}}, {ip: {moved}}, {}}, ip},
		"a VIP went":                {[]step{{ip: {one}, vip: {one}}, {ip: {one}}, {ip: {other}}}, ip + " " + vip},
		"a NodePort went":           {[]step{{ip: {one}, node: {one}}, {ip: {one}}, {ip: {other}}}, ip + " 192.168.1.11:30080"},
		"its UDP port is left":      {[]step{{ip: {one}, dns: {one}}, {dns: {one}}, {dns: {other}}}, ip},
		"nothing is reset any more": {[]step{{ip: {one}}, {ip: {moved}}, {ip: {moved}, "keep": nil}, {ip: {other}, "keep": nil}}, ""},
		"back again":                {[]step{{ip: {one}}, {ip: {moved}}, {ip: {one}}, {ip: {other}}}, ip},
		"all of them are there":     {[]step{{ip: {one}, vip: {one}}, {ip: {one}}, {ip: {one}, "203.0.113.2:80": {one}}, {ip: {one}}}, ""},
	} {
		for _, whole := range []bool{true, false} { // by Set, by Update
			f, err := New(slog.New(slog.DiscardHandler), nil)
			if err != nil {
				t.Fatal(err)
			}
			f.Set(state(c.steps[0]), true)
			for i, step := range c.steps[1:] {
				f.now = question{}
				if before, now := state(c.steps[i]), state(step); whole {
					f.Set(now, true)
				} else {
					f.Update(proxy.Change{Gone: before, Come: now})
				}
			}
			asked := f.now.filters()
			f.catchUp()
			var got []string
			for _, to := range []string{ip, vip, "192.168.1.11:30080"} {
				e := Entry{Protocol: proxy.TCP, Original: Tuple{at("192.0.2.1:5000"), at(to)}, Reply: Tuple{Src: at(one)}}
				listed := slices.ContainsFunc(asked, func(f filter) bool {
					return f.protocol == proxy.TCP && (!f.endpoint.IsValid() || f.endpoint == at(one))
				})
				if f.now.stale(e, *f.state, local) && listed {
					got = append(got, to)
				}
			}
			if strings.Join(got, " ") != c.ends {
				t.Errorf("%s (Set: %v): %q end, want %q; lists %v", name, whole, got, c.ends, asked)
			}
			if f.lasts.n > 2 || f.lasts.n == 0 != (len(f.lasts.of) == 0) {
				t.Errorf("%s (Set: %v): %v is remembered", name, whole, f.lasts)
			}
		}
	}
}

// TestRemember: an agent that is started sees connections by a targetPort of before.
func TestRemember(t *testing.T) {
	service := front(proxy.TCP, "10.96.0.10:80")
	state := func(endpoint string) proxy.State {
		b := list(endpoint)
		b.Reset = true
		return proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{service: b}, Owners: map[proxy.Frontend]model.Key{service: {Name: "web"}}}
	}
	entry := func(endpoint string) Entry {
		return Entry{Protocol: proxy.TCP, Original: Tuple{at("192.0.2.1:5000"), at("10.96.0.10:80")}, Reply: Tuple{Src: at(endpoint)}}
	}
	local := func(netip.Addr) bool { return false }
	f, err := New(slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	now := state("10.244.1.2:8080")
	f.Set(now, true)
	over, udp := entry("10.244.1.2:81"), entry("10.244.1.2:81")
	over.Over, udp.Protocol = true, proxy.UDP
	for _, e := range []Entry{entry("10.244.1.2:80"), entry("10.244.1.2:8080"), over, udp} {
		f.remember(f.now, e, now, local)
	}
	if f.lasts.n != 1 {
		t.Errorf("%v is remembered, want the one of port 80", f.lasts)
	}
	f.now = question{}
	gone := state("10.244.1.3:8080")
	f.Update(proxy.Change{Gone: now, Come: gone})
	if !f.now.stale(entry("10.244.1.2:80"), gone, local) || len(f.now.filters()) != 2 {
		t.Errorf("it is not asked for: %v", f.now.filters())
	}
}

// TestLingeringBounded remembers so many and no more.
func TestLingeringBounded(t *testing.T) {
	var l lingering
	for i := range maxLingering + 10 {
		w := way{front(proxy.TCP, "10.96.0.10:80"), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80)}
		l.note(model.Key{Name: fmt.Sprint(i % 7)}, w)
		l.note(model.Key{Name: fmt.Sprint(i % 7)}, w)
	}
	n := 0
	for _, ways := range l.of {
		n += len(ways)
	}
	if n != maxLingering || l.n != n {
		t.Errorf("%d, counted as %d", n, l.n)
	}
}

// TestPatched keeps who owns each frontend: one that goes has no owner, and one that comes back is another Service's.
func TestPatched(t *testing.T) {
	f, err := New(slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second := model.Key{Name: "first"}, model.Key{Name: "second"}
	one, two := front(proxy.TCP, "10.96.0.1:80"), front(proxy.TCP, "10.96.0.2:80")
	part := func(owner model.Key, frontends ...proxy.Frontend) proxy.State {
		s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Owners: map[proxy.Frontend]model.Key{}}
		for _, at := range frontends {
			s.Frontends[at], s.Owners[at] = list("10.244.1.2:80"), owner
		}
		return s
	}
	f.Set(part(first, one, two), true)
	set := f.state
	check := func(what string, want map[proxy.Frontend]model.Key) {
		t.Helper()
		f.catchUp()
		if got := f.state.Owners; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		if len(f.state.Frontends) != len(want) || len(set.Owners) != 2 {
			t.Errorf("%s: %v; the State of Set has %v", what, f.state.Frontends, set.Owners)
		}
	}
	f.Update(proxy.Change{Gone: part(first, one)})
	check("it goes", map[proxy.Frontend]model.Key{two: first})
	f.Update(proxy.Change{Come: part(second, one)})
	check("another has it", map[proxy.Frontend]model.Key{one: second, two: first})
	f.Update(proxy.Change{Gone: part(first, two), Come: part(second, two)})
	check("it changes hands", map[proxy.Frontend]model.Key{one: second, two: second})
}
