package nft

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/proxy"
)

// TestUpdate changes frontends at random by Update: the kernel holds what Set would have made of it, in one transaction
// each, and the State that was given to Set stays as it was.
func TestUpdate(t *testing.T) {
	testenv.NetNS(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	table := testTable(t)
	for range 10 {
		given := randomState(r)
		want := given.Own()
		before := given.String()
		set1(t, table, given)
		for range 10 {
			c := randomChange(r, want)
			batches, idle := batches(table), len(table.picks.idle)
			if done, err := table.Update(t.Context(), c); err != nil || !done {
				t.Fatal(done, err)
			}
			if n := value(table.metrics.batches) - batches; n > 1 && (n > 2 || len(table.picks.idle) >= idle) { // one may sweep
				t.Errorf("%v transactions for one change", n)
			}
			c.Apply(want)
			check(t, want)
		}
		if after := given.String(); after != before {
			t.Errorf("the State that was given changed from\n%s\nto\n%s", before, after)
		}
		n := batches(table)
		set1(t, table, want)
		if batches(table) != n {
			t.Error("a Set of what is there wrote something")
		}
	}
}

// randomChange gives some frontends of s other endpoints, takes some away and adds some, with an address each.
func randomChange(r *rand.Rand, s proxy.State) proxy.Change {
	c := proxy.Change{Gone: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}, Come: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}}}
	other := randomState(r)
	for f, b := range s.Frontends {
		if o, there := other.Frontends[f]; there && r.IntN(3) == 0 {
			c.Gone.Frontends[f] = b
			b.Outside, b.Inside = o.Outside, o.Inside
			c.Come.Frontends[f] = b
		} else if r.IntN(4) == 0 {
			c.Gone.Frontends[f] = b
		}
	}
	for f, b := range other.Frontends {
		if _, there := s.Frontends[f]; !there && r.IntN(3) == 0 {
			c.Come.Frontends[f] = b
		}
	}
	c.Gone.Addresses, c.Come.Addresses = proxy.Set[netip.Addr]{}, proxy.Set[netip.Addr]{}
	for a := range s.Addresses {
		if r.IntN(4) == 0 {
			c.Gone.Addresses[a] = struct{}{}
		}
	}
	for a := range other.Addresses {
		if _, there := s.Addresses[a]; !there && r.IntN(3) == 0 {
			c.Come.Addresses[a] = struct{}{}
		}
	}
	if r.IntN(3) == 0 {
		c.Come.Hairpins = proxy.Set[netip.Addr]{netip.MustParseAddr("10.244.9.9"): {}}
	}
	return c
}

// TestUpdateAfterFailure leaves it to Set where the kernel may not hold what was asked for, and repairs what others did to
// the frontend that changes.
func TestUpdateAfterFailure(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	table := testTable(t, WithoutOwner())
	s := services(5)
	c := randomChange(rand.New(rand.NewPCG(1, 1)), s)
	if done, err := table.Update(t.Context(), c); done || err != nil {
		t.Fatal("an update of a table that was not set", done, err)
	}
	set1(t, table, s)
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.3"), Protocol: proxy.TCP, Port: 80}
	was := s.Frontends[f]
	is := proxy.Backends{Outside: was.Outside[:1], Inside: was.Inside[:1]}
	if err := nftTool(t, "flush", "map", "inet", "hythe", "endpoints4"); err != nil {
		t.Fatal(err)
	}
	c = proxy.Change{Gone: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{f: was}}, Come: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{f: is}}}
	if done, err := table.Update(t.Context(), c); err != nil || !done {
		t.Fatal(done, err)
	}
	s.Frontends[f] = is
	check(t, s)
	table.written = nil // as after a foreign change that could not be repaired
	if done, err := table.Update(t.Context(), c); done || err != nil {
		t.Fatal("an update of a table that is not as it should be", done, err)
	}
}
