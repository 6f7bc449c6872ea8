package nft

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

func testTable(t *testing.T, options ...Option) *Table {
	t.Helper()
	table, err := New(slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func set1(t *testing.T, table *Table, s proxy.State) {
	t.Helper()
	if err := table.Set(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func value(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

func batches(table *Table) float64 { return value(table.metrics.batches) }

// held returns what the kernel holds, read by a socket of its own, one element a line.
func held(t *testing.T) []string {
	t.Helper()
	return lines(contents(t))
}

// lines shows elements; the order of endpoints, which is free, does not show.
func lines(c nfnetlink.Contents) []string {
	byName := map[string]ruleset.Set{}
	for _, s := range ruleset.Sets() {
		byName[s.Name] = s
	}
	var out []string
	for e, v := range c {
		s := byName[e.Set]
		text := ruleset.ElementText(e)
		if strings.Contains(e.Set, "endpoints") {
			text = text[:strings.LastIndex(text, " . ")]
		}
		if s.Data != nil {
			v = s.Data.Text(v)
		}
		out = append(out, fmt.Sprintf("%s %x: %s", text, e.End, v))
	}
	slices.Sort(out)
	return out
}

func check(t *testing.T, want proxy.State) {
	t.Helper()
	got, expected := held(t), lines(ruleset.Encode(want, nil))
	if !slices.Equal(got, expected) {
		t.Fatalf("the kernel holds\n%s\nwanted\n%s", strings.Join(got, "\n"), strings.Join(expected, "\n"))
	}
}

func endpoints(prefix string, n int) []netip.AddrPort {
	a := netip.MustParseAddr(prefix)
	var out []netip.AddrPort
	for range n {
		out = append(out, netip.AddrPortFrom(a, 8080))
		a = a.Next()
	}
	return out
}

// services makes a state of n Services with three endpoints each.
func services(n int) proxy.State {
	s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Addresses: proxy.Set[netip.Addr]{},
		PodRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("10.244.0.0/16"): {}}}
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		eps := endpoints(fmt.Sprintf("10.244.%d.%d", i>>8, i&0xfc), 3)
		s.Frontends[proxy.Frontend{Addr: addr, Protocol: proxy.TCP, Port: 80}] = proxy.Backends{Outside: eps, Inside: eps}
		s.Addresses[addr] = struct{}{}
	}
	return s
}

// TestSecondSetWritesNothing also holds for another process that finds the table.
func TestSecondSetWritesNothing(t *testing.T) {
	testenv.NetNS(t)
	for _, options := range [][]Option{nil, {WithoutOwner()}} {
		s := services(20)
		first := testTable(t, options...)
		set1(t, first, s)
		check(t, s)
		before := batches(first)
		set1(t, first, services(20))
		if got := batches(first) - before; got != 0 {
			t.Errorf("a second Set sent %v transactions", got)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		second := testTable(t, options...)
		set1(t, second, s)
		if got := batches(second); got != 0 {
			t.Errorf("a restarted Table sent %v transactions for what is there", got)
		}
		check(t, s)
		if err := second.conn.Batch([]netlink.Message{nfnetlink.DeleteTable(nfnetlink.TableName)}); err != nil {
			t.Fatal(err)
		}
		_ = second.Close()
	}
}

// TestChangeOfOneService replaces no more than the elements of that Service.
func TestChangeOfOneService(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	s := services(50)
	set1(t, table, s)
	changed := services(50)
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.7"), Protocol: proxy.TCP, Port: 80}
	eps := slices.Delete(slices.Clone(s.Frontends[f].Outside), 0, 1)
	changed.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps}
	before, beforeBatches := value(table.metrics.changes), batches(table)
	set1(t, table, changed)
	// The last index moves into the hole, goes, and the frontend goes to another chain.
	if got := value(table.metrics.changes) - before; got != 3 {
		t.Errorf("%v elements changed, want 3", got)
	}
	if got := batches(table) - beforeBatches; got != 1 {
		t.Errorf("%v transactions, want 1", got)
	}
	check(t, changed)
}

func randomState(r *rand.Rand) proxy.State {
	s := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Addresses: proxy.Set[netip.Addr]{},
		Pings: map[netip.Addr]netip.Addr{}, PodRanges: proxy.Set[netip.Prefix]{}, Hairpins: proxy.Set[netip.Addr]{},
		Overlays: proxy.Set[string]{}}
	some := func(prefix string) []netip.AddrPort {
		all := endpoints(prefix, 6)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all[:r.IntN(7)]
	}
	for _, family := range []struct{ service, any, pods, node string }{
		{"10.96.0.%d", "0.0.0.0", "10.244.%d.0", "192.168.1.1"}, {"fd10::%d", "::", "fd01:0:0:%d::", "fd00::1"}} {
		bits := map[bool]int{true: 24, false: 64}[family.any == "0.0.0.0"]
		for i := 1; i < 5; i++ {
			pods := netip.MustParseAddr(fmt.Sprintf(family.pods, i))
			addr := netip.MustParseAddr(fmt.Sprintf(family.service, i))
			if r.IntN(2) == 0 {
				s.PodRanges[netip.PrefixFrom(pods, bits)] = struct{}{}
				s.Hairpins[pods] = struct{}{}
			}
			if r.IntN(2) == 0 {
				s.Addresses[addr] = struct{}{}
			}
			for set, ranges := range map[*proxy.Set[netip.Addr]]*proxy.Set[netip.Prefix]{&s.Externals: &s.ServiceRanges, &s.Others: &s.NodePortRanges} {
				if *set == nil {
					*set, *ranges = proxy.Set[netip.Addr]{}, proxy.Set[netip.Prefix]{}
				}
				if r.IntN(2) == 0 {
					(*set)[addr] = struct{}{}
					p, _ := addr.Prefix(addr.BitLen() - 7*r.IntN(2)) // both have the address of 1
					if covered := slices.ContainsFunc(slices.Collect(maps.Keys(*ranges)), p.Overlaps); !covered {
						(*ranges)[p] = struct{}{}
					}
				}
			}
			if r.IntN(2) == 0 {
				s.Pings[addr] = netip.MustParseAddr(family.node)
			}
			for _, f := range []proxy.Frontend{{Addr: addr, Protocol: proxy.TCP, Port: 80},
				{Addr: netip.MustParseAddr(family.any), Protocol: proxy.UDP, Port: uint16(30000 + i)}} {
				b := proxy.Backends{Outside: some(pods.String()), Inside: some(pods.String())}
				if r.IntN(2) == 0 {
					b.Inside = b.Outside
				}
				b.Affinity = time.Duration(r.IntN(3)) * time.Hour
				if r.IntN(3) == 0 {
					b.Choice = proxy.Choice(r.IntN(3))
				}
				if len(b.Outside)+len(b.Inside) == 0 {
					b.Elsewhere = r.IntN(2) == 0
				}
				if r.IntN(2) == 0 {
					b.Sources = []netip.Prefix{}
					for j := range r.IntN(3) {
						p, _ := netip.AddrFrom4([4]byte{192, 0, byte(j), 0}).Prefix(24)
						if addr.Is6() {
							p = netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:%d::", j)), 48)
						}
						b.Sources = append(b.Sources, p)
					}
				}
				s.Frontends[f] = b
				if r.IntN(4) == 0 {
					delete(s.Frontends, f)
				}
			}
		}
	}
	if r.IntN(2) == 0 {
		s.Overlays["hythe.vxlan"] = struct{}{}
	}
	return s
}

// rng is a source that tells how to repeat it.
func rng(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// checkFrontends wants to read back what was asked for.
func checkFrontends(t *testing.T, want proxy.State) {
	t.Helper()
	got, err := readback.Frontends()
	if err != nil || len(got) != len(want.Frontends) {
		t.Fatalf("%v; %d frontends were read, %d asked for", err, len(got), len(want.Frontends))
	}
	for f, b := range want.Frontends {
		b.Outside, b.Inside = slices.SortedFunc(slices.Values(b.Outside), netip.AddrPort.Compare), slices.SortedFunc(slices.Values(b.Inside), netip.AddrPort.Compare)
		if len(b.Outside)+len(b.Inside) == 0 {
			b.Affinity = 0 // no chain says it
		}
		if len(b.Outside) < 2 && len(b.Inside) < 2 {
			b.Choice = proxy.Random // there is none
		}
		if !got[f].Equal(b) {
			t.Fatalf("%s: %v was read, %v asked for", f, got[f], b)
		}
	}
}

// TestRandomWalk goes from any state to any other, now and then as another process.
func TestRandomWalk(t *testing.T) {
	testenv.NetNS(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	table := testTable(t)
	for range 60 {
		if r.IntN(5) == 0 {
			_ = table.Close()
			table = testTable(t)
		}
		s := randomState(r)
		set1(t, table, s)
		check(t, s)
		checkFrontends(t, s)
		if failures := value(table.metrics.failures); failures > 0 {
			t.Fatalf("%v batches were refused", failures)
		}
	}
}

// TestBadElement isolates the one element that the kernel refuses, in a table that is there and in a new one.
func TestBadElement(t *testing.T) {
	for name, before := range map[string]int{"change": 100, "cold start": 0} {
		t.Run(name, func(t *testing.T) {
			testenv.NetNS(t)
			table := testTable(t)
			if before > 0 {
				set1(t, table, services(before))
			}
			s := services(200)
			bad := netip.MustParseAddrPort("[2001:db8::1]:80") // no endpoint of an IPv4 frontend
			f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.0"), Protocol: proxy.TCP, Port: 80}
			s.Frontends[f] = proxy.Backends{Outside: []netip.AddrPort{bad}, Inside: []netip.AddrPort{bad}}
			err := table.Set(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), "endpoints4 10.96.0.0 ") {
				t.Fatalf("Set: %v, want an error that names the element", err)
			}
			want, got := lines(ruleset.Encode(s, nil)), held(t)
			isBad := func(line string) bool { return strings.HasPrefix(line, "endpoints4 10.96.0.0 ") }
			if !slices.Equal(slices.DeleteFunc(got, isBad), slices.DeleteFunc(want, isBad)) {
				t.Errorf("not all others are there:\n%s", strings.Join(got, "\n"))
			}
			set1(t, table, services(200))
			check(t, services(200))
		})
	}
}

// nftTool runs the nft command line, somebody else who changes tables.
func nftTool(t *testing.T, args ...string) error {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	t.Logf("nft %s: %s %v", strings.Join(args, " "), out, err)
	return err
}

func needNft(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		if testenv.Strict() {
			t.Fatal("LAB=strict: needs the nft command line")
		}
		t.Skip("needs the nft command line")
	}
}

// TestRepair has others destroy parts of the table, on a kernel without table owners.
func TestRepair(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	table := testTable(t, WithoutOwner())
	s := services(200)
	set1(t, table, s)
	want := lines(ruleset.Encode(s, nil))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- table.Run(ctx) }()
	for _, harm := range []string{
		"flush ruleset",
		"delete element inet hythe frontends4 { 10.96.0.7 . tcp . 80 }",
		"delete table inet hythe",
		"add element inet hythe addresses4 { 192.0.2.1 }",
		"flush chain inet hythe nat-postrouting",
		"insert rule inet hythe services4 drop",
		"add element inet hythe pod-ranges4 { 172.16.0.0/12 }",
	} {
		repairs := value(table.metrics.repairs)
		start := time.Now()
		if err := nftTool(t, strings.Fields(harm)...); err != nil {
			t.Fatal(err)
		}
		for {
			c, err := nfnetlink.Dial(0)
			if err != nil {
				t.Fatal(err)
			}
			f, err := read(c)
			_ = c.Close()
			if err == nil && f.whole && value(table.metrics.repairs) > repairs && slices.Equal(lines(f.contents), want) {
				break
			}
			if time.Since(start) > time.Second {
				t.Fatalf("%s: not repaired in 1 s", harm)
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Logf("%s: repaired after %v", harm, time.Since(start))
	}
	// Another table of somebody else's is none of our business.
	repairs := value(table.metrics.repairs)
	if err := nftTool(t, "add", "table", "inet", "other"); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := value(table.metrics.repairs) - repairs; got != 0 {
		t.Errorf("%v repairs after a change of another table", got)
	}
}

// TestOwner shows that others cannot touch an owned table, and that it stays when its owner is gone.
func TestOwner(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	table := testTable(t)
	if table.plain {
		t.Skip("the kernel has no persistent table owner")
	}
	s := services(10)
	set1(t, table, s)
	if err := nftTool(t, "flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	if nftTool(t, "delete", "table", "inet", "hythe") == nil {
		t.Error("somebody else could delete the table")
	}
	_ = table.Close()
	check(t, s)
	second := testTable(t)
	set1(t, second, s)
	if nftTool(t, "delete", "table", "inet", "hythe") == nil {
		t.Error("the second owner does not own the table")
	}
	third := testTable(t)
	if err := third.Set(t.Context(), services(11)); err == nil {
		t.Error("two owners at once")
	}
}

// TestListing keeps an eye on what people see.
func TestListing(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	state, eps := services(2), endpoints("10.244.0.0", 2)
	stays := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.9"), Protocol: proxy.UDP, Port: 53}
	state.Frontends[stays] = proxy.Backends{Outside: eps, Inside: eps, Affinity: time.Hour}
	set1(t, testTable(t), state)
	out, err := exec.Command("nft", "list", "table", "inet", "hythe").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		"10.96.0.0 . tcp . 80 : 0x00000000 . 0x00000003 . 0x00000000,",
		"10.96.0.9 . udp . 53 : 0x00000000 . 0x00000002 . 0x00000e10",
		"0x00000003 . 0x00000000 : goto pick4-3",
		"10.96.0.1 . tcp . 80 . 0x00000002 : 10.244.0.2 . 8080 }",
		"dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints4",
		"vmap @picks4 comment \"ClusterIP or VIP, by frontends4\"",
		"oifname \"hyt*\" oifname != @overlays goto to-local-pod",
		"ip saddr . ip daddr @hairpins4 masquerade",
		"comment \"" + ruleset.Comment(ruleset.Version()) + "\"",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("nft does not show %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "@nh") || strings.Contains(string(out), "@th") {
		t.Errorf("nft cannot name all fields:\n%s", out)
	}
}

// request is a message about the family inet that the product does not send.
func request(typ uint16, attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attributes...),
	}
}

// TestScale fills a table with 10,000 Services and changes one. It prints times, and fails only on absurd ones.
func TestScale(t *testing.T) {
	testenv.NetNS(t)
	table, err := New(slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	const n = 10_000
	took := func(what string, f func()) time.Duration {
		start := time.Now()
		f()
		d := time.Since(start)
		t.Logf("%-45s %v", what, d.Round(10*time.Microsecond))
		return d
	}
	s := services(n)
	cold := took("10,000 Services x 3 endpoints, cold", func() { set1(t, table, s) })
	took("the same again", func() { set1(t, table, s) })
	var total time.Duration
	const updates = 20
	for i := range updates {
		next := s
		next.Frontends = maps.Clone(s.Frontends)
		f := proxy.Frontend{Addr: netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), Protocol: proxy.TCP, Port: 80}
		eps := s.Frontends[f].Outside[1:]
		next.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps}
		start := time.Now()
		set1(t, table, next)
		total += time.Since(start)
		s = next
	}
	t.Logf("%-45s %v", "one endpoint less, mean of 20", (total / updates).Round(10*time.Microsecond))
	took("read back and compare", func() { table.written = nil; set1(t, table, s) })
	rules, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(nfnetlink.TableName + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte("services4\x00")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.conn.Batch([]netlink.Message{request(unix.NFT_MSG_DELRULE, rules)}); err != nil {
		t.Fatal(err)
	}
	took("all anew, in one transaction", func() { table.written = nil; set1(t, table, s) })
	check(t, s)
	if value(table.metrics.failures) > 0 || cold > 20*time.Second {
		t.Errorf("cold start took %v, %v failures", cold, value(table.metrics.failures))
	}
}
