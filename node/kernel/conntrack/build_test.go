package conntrack

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/proxy"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func list(endpoints ...string) proxy.Backends {
	var b proxy.Backends
	for _, e := range endpoints {
		b.Outside = append(b.Outside, at(e))
	}
	b.Inside = b.Outside
	return b
}

func front(protocol proxy.Protocol, addr string) proxy.Frontend {
	a := at(addr)
	return proxy.Frontend{Addr: a.Addr(), Protocol: protocol, Port: a.Port()}
}

func TestBuild(t *testing.T) {
	udp, tcp := front(proxy.UDP, "10.96.0.10:53"), front(proxy.TCP, "10.96.0.10:53")
	local := proxy.Backends{Inside: list("10.244.2.2:53").Inside}
	for name, c := range map[string]struct {
		before, now *proxy.Backends
		want        bool
	}{
		"the same":       {ptr(list("10.244.1.2:53")), ptr(list("10.244.1.2:53")), false},
		"one more":       {ptr(list("10.244.1.2:53")), ptr(list("10.244.1.2:53", "10.244.1.3:53")), false},
		"one less":       {ptr(list("10.244.1.2:53", "10.244.1.3:53")), ptr(list("10.244.1.3:53")), true},
		"replaced":       {ptr(list("10.244.1.2:53")), ptr(list("10.244.1.3:53")), true},
		"last one gone":  {ptr(list("10.244.1.2:53")), ptr(list()), true},
		"first one":      {ptr(list()), ptr(list("10.244.1.2:53")), true},
		"still none":     {ptr(list()), ptr(list()), false},
		"it comes":       {nil, ptr(list()), true},
		"it goes":        {ptr(list()), nil, true},
		"policy changed": {ptr(list("10.244.2.2:53")), &local, false},
		"it terminates":  {ptr(list("10.244.1.2:53", "10.244.1.3:53")), ptr(keeping("10.244.1.2:53", "10.244.1.3:53")), false},
		"terminated":     {ptr(keeping("10.244.1.2:53", "10.244.1.3:53")), ptr(list("10.244.1.3:53")), true},
		"inside, gone":   {&local, ptr(list("10.244.1.2:53")), true},
	} {
		before, now := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}, proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}
		for _, f := range []proxy.Frontend{udp, tcp} {
			if c.before != nil {
				before.Frontends[f] = *c.before
			}
			if c.now != nil {
				now.Frontends[f] = *c.now
			}
		}
		if got := slices.Equal(Build(before, now), []proxy.Frontend{udp}); got != c.want {
			t.Errorf("%s: %v", name, Build(before, now))
		}
	}
}

// keeping is a list with an endpoint that only keeps what it has.
func keeping(keep string, endpoints ...string) proxy.Backends {
	b := list(endpoints...)
	b.Keep = []netip.AddrPort{at(keep)}
	return b
}

func ptr[T any](v T) *T { return &v }

// TestStale judges entries, written as protocol, destination and where it was translated to.
func TestStale(t *testing.T) {
	service, nodePort, empty := front(proxy.UDP, "10.96.0.10:53"), front(proxy.UDP, "0.0.0.0:30053"), front(proxy.UDP, "10.96.0.11:53")
	gone, goneNodePort := front(proxy.UDP, "10.96.0.12:53"), front(proxy.UDP, "0.0.0.0:30054")
	s := proxy.State{
		Frontends: map[proxy.Frontend]proxy.Backends{service: list("10.244.1.2:53"), nodePort: list("10.244.1.2:53"), empty: list(),
			front(proxy.SCTP, "10.96.0.10:53"): list("10.244.1.2:53"), front(proxy.UDP, "[fd10::10]:53"): list("[fd01::2]:53"),
			front(proxy.UDP, "[::]:30053"): list("[fd01::2]:53")},
		PodRanges:      proxy.Set[netip.Prefix]{netip.MustParsePrefix("10.244.0.0/16"): {}},
		NodePortRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("192.168.1.0/24"): {}, netip.MustParsePrefix("::/0"): {}},
	}
	local := func(a netip.Addr) bool {
		return a == netip.MustParseAddr("192.168.1.11") || a == netip.MustParseAddr("172.17.0.1") || a == netip.MustParseAddr("fd00::11") || a.IsLoopback()
	}
	some := about(service, nodePort, empty, gone, goneNodePort, front(proxy.SCTP, "10.96.0.10:53"),
		front(proxy.UDP, "[fd10::10]:53"), front(proxy.UDP, "[::]:30053"))
	start := question{all: true}
	start.add(proxy.State{}, s)
	for _, c := range []struct {
		entry          string
		changed, start bool
	}{
		{"udp 10.96.0.10:53 10.244.1.2:53", false, false},
		{"udp 10.96.0.10:53 10.244.1.9:53", true, true},
		{"udp 10.96.0.10:53 10.244.1.2:54", true, true}, // another port of it
		{"udp 10.96.0.10:53 10.96.0.10:53", true, true}, // from before there was a Service
		{"udp 10.96.0.11:53 10.96.0.11:53", true, true}, // refused, and kept alive
		{"udp 10.96.0.11:53 10.244.1.2:53", true, true}, // lost its last endpoint
		{"udp 10.96.0.12:53 10.244.1.2:53", true, true}, // deleted
		{"udp 10.96.0.12:53 10.96.0.12:53", false, false},
		{"udp 192.168.1.11:30053 10.244.1.2:53", false, false},
		{"udp 192.168.1.11:30053 10.244.1.9:53", true, true},
		{"udp 192.168.1.11:30053 192.168.1.11:30053", true, true},
		{"udp 192.168.1.12:30053 192.168.1.12:30053", false, false}, // another node's
		{"udp 192.168.1.12:30053 172.17.0.2:53", false, false},      // another host's, translated by another tool
		{"udp 192.168.1.12:30054 172.17.0.2:53", false, false},
		{"udp 172.17.0.1:30053 172.17.0.2:53", false, false}, // this node's, where NodePorts are not
		{"udp 127.0.0.1:30053 127.0.0.1:30053", false, false},
		{"udp 192.168.1.11:30054 10.244.1.2:53", true, true},
		{"udp 192.168.1.11:30054 192.168.1.11:30054", false, false}, // a process of this node has it now
		{"udp 192.168.1.11:5353 192.168.1.11:5353", false, false},
		{"udp 198.51.100.1:53 198.51.100.1:53", false, false},
		{"udp 192.168.1.11:53 10.244.7.7:53", false, true}, // to a pod by nobody's rule, as far as we know
		{"udp 192.168.1.11:53 172.17.0.2:53", false, false},
		{"sctp 10.96.0.10:53 10.244.1.9:53", false, false},
		{"tcp 10.96.0.10:53 10.244.1.9:53", false, false},
		{"udp [fd10::10]:53 [fd01::2]:53", false, false},
		{"udp [fd10::10]:53 [fd01::9]:53", true, true},
		{"udp [fd00::11]:30053 [fd01::9]:53", true, true},
		{"udp [fd00::12]:30053 [fd00::12]:30053", false, false},
	} {
		words := strings.Fields(c.entry)
		protocol := map[string]proxy.Protocol{"udp": proxy.UDP, "sctp": proxy.SCTP, "tcp": proxy.TCP}[words[0]]
		e := Entry{Protocol: protocol, Original: Tuple{at("192.0.2.1:5000"), at(words[1])}, Reply: Tuple{Src: at(words[2])}}
		if got := some.stale(e, s, local); got != c.changed {
			t.Errorf("after a change, %s is stale: %v", c.entry, got)
		}
		if got := start.stale(e, s, local); got != c.start {
			t.Errorf("at start, %s is stale: %v", c.entry, got)
		}
	}
}

// about asks for the flows of frontends.
func about(frontends ...proxy.Frontend) question {
	q := question{some: map[proxy.Frontend]pods{}}
	for _, f := range frontends {
		q.some[f] = nil
	}
	return q
}

// TestResetLiving leaves connections alone whose endpoint is there: by another port, since the targetPort changed, or by another frontend
// of the same Service.
func TestResetLiving(t *testing.T) {
	const vip, ip, other = "203.0.113.1:80", "10.96.0.10:80", "10.96.0.11:80"
	web, shop := model.Key{Name: "web"}, model.Key{Name: "shop"}
	state := func(frontends map[string][]string) proxy.State {
		s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Owners: map[proxy.Frontend]model.Key{}}
		for f, endpoints := range frontends {
			b := list(endpoints...)
			b.Reset = true
			if s.Owners[front(proxy.TCP, f)] = web; f == other {
				s.Owners[front(proxy.TCP, f)] = shop
			}
			s.Frontends[front(proxy.TCP, f)] = b
		}
		return s
	}
	const one, two, moved = "10.244.1.2:80", "10.244.1.3:80", "10.244.1.2:8080"
	for name, c := range map[string]struct {
		before, now map[string][]string
		ends        string // entries, by frontend and endpoint
		lists       int
	}{
		"the targetPort changes":              {map[string][]string{ip: {one}}, map[string][]string{ip: {moved}}, "", 0},
		"it changes, and another pod is gone": {map[string][]string{ip: {one, two}}, map[string][]string{ip: {moved}}, "ip two", 1},
		"a frontend goes":                     {map[string][]string{ip: {one}, vip: {one}}, map[string][]string{ip: {one}}, "", 0},
		"it goes, and the port changes":       {map[string][]string{ip: {one}, vip: {one}}, map[string][]string{ip: {moved}}, "", 0},
		"it goes, and a pod is gone":          {map[string][]string{ip: {one, two}, vip: {one, two}}, map[string][]string{ip: {one}}, "ip two, vip two", 1},
		"another Service has the pod":         {map[string][]string{ip: {one}, other: {one}}, map[string][]string{other: {one}}, "ip one", 1},
		"the last frontend goes":              {map[string][]string{ip: {one}, vip: {one}}, map[string][]string{}, "ip one, vip one", 1},
	} {
		for _, all := range []bool{false, true} {
			before, now := state(c.before), state(c.now)
			var q question
			if q.add(before, now); all { // an option of before, asked again
				q = question{}.and(q).and(about(front(proxy.TCP, ip)))
			}
			var got []string
			for at1, f := range map[string]string{"ip": ip, "vip": vip} {
				for to, endpoint := range map[string]string{"one": one, "two": two} {
					if !slices.Contains(c.before[f], endpoint) {
						continue
					}
					e := Entry{Protocol: proxy.TCP, Original: Tuple{at("192.0.2.1:5000"), at(f)}, Reply: Tuple{Src: at(endpoint)}}
					if q.stale(e, now, func(netip.Addr) bool { return false }) {
						got = append(got, at1+" "+to)
					}
				}
			}
			slices.Sort(got)
			if strings.Join(got, ", ") != c.ends || len(q.filters()) != c.lists {
				t.Errorf("%s: %q end, want %q; lists %v", name, got, c.ends, q.filters())
			}
		}
	}
}

// TestReset looks at TCP connections where their Service wants it, and ends those to endpoints that are not there at all.
func TestReset(t *testing.T) {
	f := front(proxy.TCP, "10.96.0.10:80")
	with := func(reset bool, keep string, endpoints ...string) *proxy.Backends {
		b := list(endpoints...)
		if b.Reset = reset; keep != "" {
			b.Keep = []netip.AddrPort{at(keep)}
		}
		return &b
	}
	const one, two = "10.244.1.2:80", "10.244.1.3:80"
	entry := Entry{Protocol: proxy.TCP, Original: Tuple{at("192.0.2.1:5000"), netip.AddrPortFrom(f.Addr, f.Port)}, Reply: Tuple{Src: at(one)}}
	over, untranslated := entry, entry
	over.Over, untranslated.Reply.Src = true, netip.AddrPortFrom(f.Addr, f.Port)
	for name, c := range map[string]struct {
		before, now *proxy.Backends
		asked, ends bool
	}{
		"the same":             {with(true, "", one), with(true, "", one), false, false},
		"it terminates":        {with(true, "", one, two), with(true, one, two), false, false},
		"it is gone":           {with(true, one, two), with(true, "", two), true, true},
		"gone at once":         {with(true, "", one), with(true, ""), true, true},
		"another one comes":    {with(true, "", one), with(true, "", one, two), false, false},
		"another one is gone":  {with(true, "", one, two), with(true, "", one), true, false},
		"deleted":              {with(true, "", one), nil, true, true},
		"not wanted":           {with(false, "", one), with(false, "", two), false, false},
		"deleted, not wanted":  {with(false, "", one), nil, false, false},
		"wanted from now on":   {with(false, "", two), with(true, "", two), true, true},
		"not wanted any more":  {with(true, "", one), with(false, "", two), true, false},
		"the agent is started": {nil, with(true, "", two), true, true},
	} {
		state := func(b *proxy.Backends) proxy.State {
			s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}
			if b != nil {
				s.Frontends[f] = *b
			}
			return s
		}
		changed := Build(state(c.before), state(c.now))
		if (len(changed) == 1) != c.asked {
			t.Errorf("%s: %v is looked at", name, changed)
		}
		q := question{all: c.before == nil}
		q.add(state(c.before), state(c.now))
		local := func(netip.Addr) bool { return false }
		if got := q.stale(entry, state(c.now), local); got != c.ends {
			t.Errorf("%s: the connection ends: %v", name, got)
		}
		if q.stale(over, state(c.now), local) || q.stale(untranslated, state(c.now), local) {
			t.Errorf("%s: one that is over, or not translated, ends", name)
		}
	}
	// Of a Service that was deleted while the agent was away nobody knows what it wanted.
	if (question{all: true}).stale(entry, proxy.State{PodRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("10.244.0.0/16"): {}}}, func(netip.Addr) bool { return false }) {
		t.Error("a connection of nobody's Service ends")
	}
}

// TestFilters bounds how often the kernel goes through its table.
func TestFilters(t *testing.T) {
	var q question
	for i := range maxFilters + 1 {
		q = q.and(about(front(proxy.UDP, fmt.Sprintf("10.96.0.%d:53", i))))
		want := []string{}
		for j := range i + 1 {
			want = append(want, fmt.Sprintf("udp 10.96.0.%d 53", j))
		}
		if i == maxFilters {
			want = []string{"udp invalid IP 0"}
		}
		var got []string
		for _, f := range q.filters() {
			got = append(got, fmt.Sprint(f.protocol, " ", f.dst, " ", f.port))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d frontends: %v", i+1, got)
		}
	}
	q.all = true
	if got := q.filters(); len(got) != 2 {
		t.Errorf("all: %v", got)
	}
}

// TestGone finds TCP connections by the endpoint that is gone, one list for all frontends.
func TestGone(t *testing.T) {
	state := func(reset bool, endpoints ...string) proxy.State {
		s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}
		for i := range 10 {
			b := list(endpoints...)
			b.Reset = reset
			s.Frontends[front(proxy.TCP, fmt.Sprintf("10.96.0.%d:80", i))] = b
		}
		return s
	}
	many := []string{"10.244.1.2:80", "10.244.1.3:80", "10.244.1.4:80", "10.244.1.5:80", "10.244.1.6:80", "10.244.1.7:80"}
	for name, c := range map[string]struct {
		before, now proxy.State
		want        string
	}{
		"one of two":         {state(true, many[:2]...), state(true, many[1]), "10.244.1.2:80"},
		"deleted":            {state(true, many[:2]...), proxy.State{}, "10.244.1.2:80 10.244.1.3:80"},
		"too many":           {state(true, many...), state(true, many[0]), "all"},
		"nobody knows":       {proxy.State{}, state(true, many[0]), "all"},
		"wanted from now on": {state(false, many[0]), state(true, many[1]), "all"},
		"not wanted":         {state(false, many[0]), state(false, many[1]), ""},
	} {
		var q question
		q.add(c.before, c.now)
		var got []string
		for _, f := range q.filters() {
			if f == (filter{protocol: proxy.TCP}) {
				got = append(got, "all")
			} else {
				got = append(got, f.endpoint.String())
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

// TestList asks the kernel, which takes the filters for what they are.
func TestList(t *testing.T) {
	testenv.NetNS(t)
	c, err := dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, f := range []filter{
		{six: false, protocol: proxy.UDP}, {six: true, protocol: proxy.SCTP}, {protocol: proxy.UDP, port: 53},
		{six: false, protocol: proxy.UDP, dst: netip.MustParseAddr("10.96.0.10"), port: 53}, {six: true, protocol: proxy.UDP, dst: netip.MustParseAddr("fd10::10"), port: 53},
		{protocol: proxy.TCP, endpoint: at("10.244.1.2:80")}, {six: true, protocol: proxy.TCP, endpoint: at("[fd01::2]:80")},
	} {
		if entries, err := c.list(f); err != nil || len(entries) != 0 {
			t.Errorf("%v: %v, %v", f, entries, err)
		}
	}
	gone := Entry{Protocol: proxy.UDP, Original: Tuple{at("192.0.2.1:5000"), at("10.96.0.10:53")}, ID: 7}
	if err := c.remove(gone); err != nil {
		t.Errorf("an entry that is gone: %v", err)
	}
}

// TestLooksTwice: what a packet under way made after the first look is found by the second.
func TestLooksTwice(t *testing.T) {
	f, err := New(slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{front(proxy.UDP, "10.96.0.10:53"): list("10.244.1.2:53")}}
	now := time.Now()
	looks := func(after time.Duration) bool { q, _ := f.take(now.Add(after)); return q.any() }
	if looks(0) {
		t.Error("it looks before it knows what is right")
	}
	f.Set(s, true)
	if !looks(0) || looks(0) || looks(again-1) || f.wait(now) != again || !looks(again) || looks(time.Hour) {
		t.Error("a change is not looked at twice, now and a moment later")
	}
	f.Set(s, true)
	if looks(0) {
		t.Error("it looks without a change")
	}
	other := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{front(proxy.UDP, "10.96.0.10:53"): list("10.244.1.3:53")}}
	f.Set(other, false)
	if !looks(0) {
		t.Error("a change that failed in part is not looked at")
	}
	f.Set(other, true)
	if !looks(0) {
		t.Error("a change that failed in part is not looked at again when it is whole")
	}
}

// TestLooksAtRefused: what the kernel refused is looked at with each Set until it is there, and nothing else.
func TestLooksAtRefused(t *testing.T) {
	f, err := New(slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	good, refused := front(proxy.UDP, "10.96.0.10:53"), front(proxy.UDP, "10.96.0.11:53")
	s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{good: list("10.244.1.2:53"), refused: list("10.244.1.2:53")}}
	now := time.Now()
	asked := func() (out []proxy.Frontend) {
		now = now.Add(2 * again)
		for range 2 { // and what is to be looked at again
			q, _ := f.take(now)
			for frontend := range q.some {
				out = append(out, frontend)
			}
			now = now.Add(2 * again)
		}
		slices.SortFunc(out, proxy.Frontend.Compare)
		return slices.Compact(out)
	}
	f.Set(s, true, refused)
	if got := asked(); len(got) != 2 {
		t.Errorf("at first %v are looked at", got)
	}
	f.Set(s, true, refused)
	if got := asked(); !slices.Equal(got, []proxy.Frontend{refused}) {
		t.Errorf("while it is refused %v are looked at", got)
	}
	f.Set(s, true)
	if got := asked(); !slices.Equal(got, []proxy.Frontend{refused}) {
		t.Errorf("when it is there %v are looked at", got)
	}
	f.Set(s, true)
	if got := asked(); len(got) != 0 || len(s.Frontends) != 2 {
		t.Errorf("after that %v are looked at", got)
	}
}

// TestUsage sees a table fill up.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		entries int
		want    string
	}{{10, ""}, {899, ""}, {900, "will be dropped"}, {1000, "the kernel drops new connections"}} {
		for name, n := range map[string]int{"nf_conntrack_count": c.entries, "nf_conntrack_max": 1000} {
			if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendln(nil, n), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		u, err := readUsage(dir)
		if err != nil || u != (Usage{Entries: c.entries, Limit: 1000}) {
			t.Fatalf("%+v, %v", u, err)
		}
		got := Problems("node-1", u)
		if (len(got) == 0) != (c.want == "") || len(got) == 1 && (!strings.Contains(got[0].Message, c.want) ||
			got[0].Object != model.ObjectRef{Kind: "Node", Name: "node-1"}) {
			t.Errorf("%d entries: %v", c.entries, got)
		}
	}
	if _, err := readUsage(t.TempDir()); err == nil {
		t.Error("a kernel without conntrack has a usage")
	}
}

// FuzzParse reads entries as the kernel, or anybody who claims to be it, may send them.
func FuzzParse(f *testing.F) {
	m, err := message(messageGet, 0, false, filter{six: false, protocol: proxy.UDP, dst: netip.MustParseAddr("10.96.0.10"), port: 53}.encode)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := parse(b); ok {
			question{all: true}.stale(e, proxy.State{}, func(netip.Addr) bool { return false })
		}
	})
}

// TestRunEnds also without a Set.
func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Run(ctx); err != nil {
		t.Error(err)
	}
}
