package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// nth is the frontend of one of services.
func nth(i int) proxy.Frontend {
	return proxy.Frontend{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Protocol: proxy.TCP, Port: 80}
}

// bad are backends that the kernel refuses at an IPv4 frontend.
func bad() proxy.Backends {
	eps := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:80")}
	return proxy.Backends{Outside: eps, Inside: eps}
}

// with returns services, of which some are bad.
func with(n int, bads ...int) proxy.State {
	s := services(n)
	s.Owners = map[proxy.Frontend]model.Key{}
	for i := range n {
		s.Owners[nth(i)] = model.Key{Namespace: "default", Name: fmt.Sprint("s", i)}
	}
	for _, i := range bads {
		s.Frontends[nth(i)] = bad()
	}
	return s
}

// checkBut wants the kernel to hold all of a state but the endpoints of some services.
func checkBut(t *testing.T, s proxy.State, bads ...int) {
	t.Helper()
	left := func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool {
			return slices.ContainsFunc(bads, func(i int) bool { return strings.HasPrefix(line, fmt.Sprintf("endpoints4 %s ", nth(i).Addr)) })
		})
	}
	got, want := left(held(t)), left(lines(ruleset.Encode(s, nil)))
	if !slices.Equal(got, want) {
		t.Fatalf("the kernel holds\n%s\nwanted\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// told wants Problems of these services, and of no others.
func told1(t *testing.T, table *Table, bads ...int) {
	t.Helper()
	var got, want []string
	for _, p := range table.Problems("node-1") {
		got = append(got, p.Object.String()+" "+p.Reason)
	}
	for _, i := range bads {
		want = append(want, fmt.Sprintf("Service default/s%d RefusedByKernel", i))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("Problems of %q, want %q", got, want)
	}
}

// TestUpdateBesideRefused: what the kernel refuses of one Service costs the others nothing. Their changes are one small transaction each,
// and nothing is read for them: what somebody else took away, which a reading would find, is still missing.
func TestUpdateBesideRefused(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t, WithoutOwner())
	const refused, other, gone = 7, 8, 9
	state := with(40, refused)
	if err := table.Set(t.Context(), state); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("Set: %v", err)
	}
	told1(t, table, refused)
	missing := nfnetlink.Element{Set: ruleset.AddressesSet + "4", Key: string(nth(gone).Addr.AsSlice())}
	if err := table.conn.Batch(nfnetlink.DeleteElements(table.sets[missing.Set].Set, []nfnetlink.Element{missing})); err != nil {
		t.Fatal(err)
	}
	delete(state.Addresses, nth(gone).Addr)
	update := func(i int, to *proxy.Backends) {
		t.Helper()
		c := proxy.Change{Gone: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}, Come: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}}
		if was, there := state.Frontends[nth(i)]; there {
			c.Gone.Frontends[nth(i)] = was
		}
		delete(state.Frontends, nth(i))
		if to != nil {
			c.Come.Frontends[nth(i)], state.Frontends[nth(i)] = *to, *to
			c.Come.Owners = map[proxy.Frontend]model.Key{nth(i): {Namespace: "default", Name: fmt.Sprint("s", i)}}
		}
		if done, err := table.Update(t.Context(), c); !done || err != nil {
			t.Fatal(done, err)
		}
	}
	good := func(n int) *proxy.Backends {
		eps := endpoints("10.244.9.1", n)
		return &proxy.Backends{Outside: eps, Inside: eps}
	}
	wrong := bad()
	for i, step := range []struct {
		service int
		to      *proxy.Backends
		batches int
		refused []int
	}{
		{other, good(2), 1, []int{refused}},
		{other, good(3), 1, []int{refused}},
		{refused, &wrong, 3, []int{refused}}, // once as it is, once to find what is bad, once without
		{other, nil, 1, []int{refused}},
		{other, &wrong, 3, []int{refused, other}},
		{other, good(1), 1, []int{refused}},
		{refused, good(2), 1, nil},
		{refused, &wrong, 3, []int{refused}},
		{refused, nil, 1, nil},
	} {
		before := batches(table)
		update(step.service, step.to)
		if n := batches(table) - before; int(n) > step.batches {
			t.Errorf("step %d: %v transactions", i, n)
		}
		told1(t, table, step.refused...)
		checkBut(t, state, step.refused...)
	}
}

// TestRefusedAgain: what the kernel refused is tried again without a change, and that alone; and by each Set.
func TestRefusedAgain(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	state := with(20)
	set1(t, table, state)
	for name, again := range map[string]func(){"by itself": func() { table.again(t.Context()) }, "by a Set": func() { set1(t, table, with(20)) }} {
		for e, value := range map[nfnetlink.Element]string{
			{Set: "frontends4", Key: string(nth(3).Addr.AsSlice()) + ruleset.PortKey(proxy.TCP, 80)}: "pick4-3",
			{Set: "addresses4", Key: string(nth(4).Addr.AsSlice())}:                                  "",
		} { // as if the kernel had had no memory
			if err := table.conn.Batch(nfnetlink.DeleteElements(table.sets[e.Set].Set, []nfnetlink.Element{e})); err != nil {
				t.Fatal(err)
			}
			delete(table.contents, e)
			table.refused[e], table.news = refusal{change{Element: e, new: value, insert: true}, unix.ENOMEM}, true
		}
		table.tell()
		if n := len(table.Problems("node-1")); n != 2 {
			t.Fatalf("%d Problems", n)
		}
		before := value(table.metrics.changes)
		again()
		if n := value(table.metrics.changes) - before; n != 2 {
			t.Errorf("%s: %v elements are written", name, n)
		}
		told1(t, table)
		check(t, state)
	}
}

// TestRefusalIsNoFailure: a Set tells what the kernel refused from what failed, after which it is not known what the kernel holds.
func TestRefusalIsNoFailure(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	var refused *RefusedError
	if err := table.Set(t.Context(), with(20, 3, 11)); !errors.As(err, &refused) || !slices.Equal(refused.Frontends, []proxy.Frontend{nth(3), nth(11)}) || !errors.Is(err, unix.EINVAL) {
		t.Errorf("two are refused: %v", err)
	}
	if err := table.Set(t.Context(), with(20)); err != nil {
		t.Error(err)
	}
	if err := table.Set(t.Context(), with(20, 3)); !errors.As(err, &refused) || !slices.Equal(refused.Frontends, []proxy.Frontend{nth(3)}) {
		t.Errorf("one is refused: %v", err)
	}
	_ = table.conn.Close()
	if err := table.Set(t.Context(), with(21, 3)); err == nil || errors.As(err, &refused) {
		t.Errorf("without a socket: %v", err)
	}
}

// TestRefusedAsAWhole: the kernel looks at all messages, cannot commit them and does not say which it was. The culprits are found by halves;
// where all is refused, it is given up soon.
func TestRefusedAsAWhole(t *testing.T) {
	const n = 700
	for name, c := range map[string]struct {
		before bool // there is a table
		bads   []int
		all    bool
	}{
		"one, no table":        {false, []int{300}, false},
		"the first, no table":  {false, []int{0}, false},
		"one":                  {true, []int{300}, false},
		"two":                  {true, []int{17, 699}, false},
		"all":                  {true, nil, true},
		"all, no table":        {false, nil, true},
		"nothing":              {true, nil, false},
		"some, as of messages": {true, []int{-5, 300}, false}, // the kernel itself refuses the fifth
	} {
		t.Run(name, func(t *testing.T) {
			testenv.NetNS(t)
			table := testTable(t, WithoutOwner())
			if c.before {
				set1(t, table, with(10))
			}
			sent := 0
			table.transact = func(messages []netlink.Message) error {
				sent++
				for _, m := range messages {
					for _, i := range c.bads {
						if i >= 0 && bytes.Contains(m.Data, append(nth(i).Addr.AsSlice(), ruleset.PortKey(proxy.TCP, 80)...)) && m.Header.Type&0xff == unix.NFT_MSG_NEWSETELEM {
							return &nfnetlink.BatchError{Failures: []nfnetlink.Failure{{Message: -1, Err: unix.ENOMEM}}}
						}
					}
				}
				if c.all {
					return &nfnetlink.BatchError{Failures: []nfnetlink.Failure{{Message: -1, Err: unix.ENOMEM}}}
				}
				return table.conn.Batch(messages)
			}
			state, bads := with(n), []int(nil)
			for _, i := range c.bads {
				if i < 0 {
					i = -i
					state.Frontends[nth(i)] = bad()
				}
				bads = append(bads, i)
			}
			err := table.Set(t.Context(), state)
			var refused *RefusedError
			if is := errors.As(err, &refused); c.all && (is || err == nil) || !c.all && is != (len(bads) > 0) {
				t.Fatalf("Set: %v", err)
			}
			if sent > 2*(maxHalved+2) {
				t.Errorf("%d transactions", sent)
			}
			if c.all {
				return
			}
			told := map[string]bool{}
			for _, p := range table.Problems("node-1") {
				told[p.Object.String()] = true
			}
			for _, i := range bads {
				if !told[fmt.Sprintf("Service default/s%d", i)] {
					t.Errorf("s%d is not named", i)
				}
			}
			if len(told) != len(bads) {
				t.Errorf("Problems of %v", told)
			}
			table.transact = table.conn.Batch // and the rest is there: it takes those alone
			set1(t, table, with(n))
			check(t, with(n))
		})
	}
}

// TestRepairBesideRefused: the table is whole but for what the kernel refuses, so nothing is repaired again and again.
func TestRepairBesideRefused(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	state := with(20, 3)
	if table.Set(t.Context(), state) == nil {
		t.Fatal("Set says nothing")
	}
	if !table.repair(t.Context()) {
		t.Error("it is repaired for ever")
	}
	told1(t, table, 3)
	checkBut(t, state, 3)
}

// TestManyRefused: however many elements are refused, all others are written. A table that is there already is replaced in one
// transaction.
func TestManyRefused(t *testing.T) {
	var bads []int
	for i := 0; i < 900; i += 3 {
		bads = append(bads, i)
	}
	state := with(900, bads...)
	for name, c := range map[string]struct {
		before func(*testing.T)
		whole  bool
	}{
		"no table": {func(*testing.T) {}, false},
		"a change": {func(t *testing.T) {
			table := testTable(t, WithoutOwner())
			set1(t, table, with(900))
			_ = table.Close()
		}, false},
		"an old table": {func(t *testing.T) { outdated(t, with(900)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.NetNS(t)
			c.before(t)
			table := testTable(t, WithoutOwner())
			var err error
			all := heard(t, func() { err = table.Set(t.Context(), state) })
			if err == nil || !strings.Contains(err.Error(), "write element endpoints4 10.96.0.") || !strings.Contains(err.Error(), fmt.Sprint(len(bads)-maxTold, " further elements")) {
				t.Errorf("Set: %v", err)
			}
			if n := transactions(all, "hythe"); c.whole && n != 1 {
				t.Errorf("the table is replaced in %d transactions", n)
			}
			if n := transactions(all, nfnetlink.InterimName); c.whole && n != 5 { // ranges before chains, which would miss them, and its end; ranges and its end when something is refused
				t.Errorf("what serves meanwhile is written in %d transactions", n)
			}
			if c, err := nfnetlink.Dial(0); err != nil {
				t.Error(err)
			} else if left, err := c.Has(unix.NFPROTO_INET, nfnetlink.InterimName, ""); left || err != nil {
				t.Error("the table that served meanwhile is left", err, c.Close())
			}
			if n := len(table.Problems("node-1")); n != maxTold+1 {
				t.Errorf("%d Problems", n)
			}
			checkBut(t, state, bads...)
			set1(t, table, with(900))
			check(t, with(900))
			told1(t, table)
		})
	}
}

// transactions is how many of those that were heard changed a table.
func transactions(heard []string, table string) (n int) {
	changed := false
	for _, m := range heard {
		switch {
		case strings.HasSuffix(m, " "+table):
			changed = true
		case m == "newgen" && changed:
			n, changed = n+1, false
		}
	}
	return n
}

// TestDivide finds bad changes among many.
func TestDivide(t *testing.T) {
	for _, n := range []int{1, 2, 63, 512, 513, 5000} {
		all := make([]change, n)
		for i := range all {
			all[i] = change{Element: nfnetlink.Element{Set: "addresses4", Key: fmt.Sprintf("%05d", i)}, insert: true}
		}
		wrong := func(c change) bool { return c.Key == all[n/2].Key || c.Key == all[n-1].Key }
		rest, rounds := parts(all, firstPart), 0
		var found []string
		for {
			bad := map[int]error{}
			for i, part := range rest {
				if slices.ContainsFunc(part, wrong) {
					bad[i] = unix.EINVAL
				}
			}
			if len(bad) == 0 {
				break
			}
			rounds++
			var refused []refusal
			if rest, refused = divide(rest, bad); rounds > 4 {
				t.Fatalf("%d changes: %d rounds", n, rounds)
			}
			for _, r := range refused {
				found = append(found, r.Key)
			}
		}
		if slices.Sort(found); !slices.Equal(found, slices.Compact([]string{all[n/2].Key, all[n-1].Key})) || len(slices.Concat(rest...)) != n-len(found) {
			t.Errorf("of %d, %q are bad, and %d are left", n, found, len(slices.Concat(rest...)))
		}
	}
	// Too many parts: what is bad is given up in one piece, and nothing else.
	many, bad := make([][]change, maxParts), map[int]error{1: unix.EINVAL}
	for i := range many {
		many[i] = make([]change, 2)
	}
	if next, refused := divide(many, bad); len(next) != maxParts-1 || len(refused) != 2 {
		t.Errorf("%d parts, %d refused", len(next), len(refused))
	}
}

// outdated leaves a table behind that is not quite this version's.
func outdated(t *testing.T, s proxy.State, options ...Option) {
	t.Helper()
	table := testTable(t, append(options, WithoutOwner())...)
	set1(t, table, s)
	extra := nfnetlink.Chain{Name: "of-another-version", Rules: []nfnetlink.Rule{{Comment: "nothing"}}}
	if err := table.conn.Batch(nfnetlink.NewChain(extra)); err != nil {
		t.Fatal(err)
	}
	_ = table.Close()
}

// TestRefusedChain: the kernel takes what leads to a chain without the chain. So who would lead there is refused, and stays where it led
// before; all else of the transaction is done.
func TestRefusedChain(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	table := testTable(t, WithoutOwner())
	set1(t, table, services(3))
	// To a base chain nobody may go.
	if err := nftTool(t, "add chain inet hythe pick4-5 { type filter hook input priority 0; }"); err != nil {
		t.Fatal(err)
	}
	next := services(4)
	five := endpoints("10.244.9.1", 5)
	next.Frontends[nth(1)] = proxy.Backends{Outside: five, Inside: five}
	changes := table.plan(proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{nth(1): services(3).Frontends[nth(1)]}}, next)
	order(changes, table.sets)
	if err := table.isolate(nil, changes); err != nil {
		t.Fatal(err)
	}
	if len(table.refused) != 1 {
		t.Errorf("%d refusals: %v", len(table.refused), table.refused)
	}
	for i, want := range []string{"pick4-3", "pick4-3", "pick4-3", "pick4-3"} {
		found, err := readback.Lookup(readback.Query{From: netip.MustParseAddr("192.0.2.1"), To: nth(i).Addr, Protocol: proxy.TCP, Port: 80})
		if err != nil || found.Outside == nil || found.Outside.Chain != want || len(found.Endpoints) != 3 {
			t.Errorf("Service %d: %+v, %v", i, found, err)
		}
	}
}
