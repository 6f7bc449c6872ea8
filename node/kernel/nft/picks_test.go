package nft

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// chainsInKernel is how many chains of picks the kernel has.
func chainsInKernel(t *testing.T) int {
	t.Helper()
	s, err := readback.Table()
	if err != nil || !s.Whole {
		t.Fatalf("%+v, %v", s, err)
	}
	return s.Chains
}

// TestPicksAreDeleted: chains for timeouts of affinity and numbers of endpoints that no Service has any more go, but for a few; also those
// that an agent of before left.
func TestPicksAreDeleted(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t, WithoutOwner())
	s := services(10)
	set1(t, table, s)
	was := s.Frontends[nth(5)]
	for i := range 300 {
		now := was
		now.Affinity = time.Duration(i+1) * time.Second
		if i%3 == 0 {
			now.Affinity, now.Outside = 0, endpoints("10.244.0.1", 3+i)
			now.Inside = now.Outside
		}
		c := proxy.Change{Gone: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{nth(5): was}}, Come: proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{nth(5): now}}}
		if done, err := table.Update(t.Context(), c); !done || err != nil {
			t.Fatal(done, err)
		}
		s.Frontends[nth(5)], was = now, now
	}
	check(t, s)
	if n := chainsInKernel(t); n > 2*maxIdle+2 {
		t.Errorf("%d chains are left of 300, 2 are in use", n)
	}
	if n := value(table.metrics.batches); n > 1+300+300/maxIdle {
		t.Errorf("%v transactions for 300 changes", n)
	}

	// What an agent of before left, and of it one that is in use again.
	var left []netlink.Message
	for i := range 500 {
		pick := ruleset.NewPick(fmt.Sprint("pick4-7-", 1000+i))
		if len(pick) == 0 {
			t.Fatal("no such chain")
		}
		left = append(left, pick...)
	}
	if err := table.conn.Batch(left); err != nil {
		t.Fatal(err)
	}
	_ = table.Close()
	if n := chainsInKernel(t); n < 500 {
		t.Fatalf("%d chains", n)
	}
	after := testTable(t, WithoutOwner())
	is := s.Own()
	is.Frontends = maps.Clone(s.Frontends)
	seven := endpoints("10.244.3.1", 7)
	is.Frontends[nth(5)] = proxy.Backends{Outside: seven, Inside: seven, Affinity: 1007 * time.Second}
	set1(t, after, is)
	check(t, is)
	if n := chainsInKernel(t); n > maxIdle+2 {
		t.Errorf("%d chains are left", n)
	}
	set1(t, after, s)
	check(t, s)
	if value(after.metrics.failures) > 0 {
		t.Error("something was refused")
	}
}

// TestPicksCount compares what is counted by changes with what a reading counts.
func TestPicksCount(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	r := rng(t)
	for range 40 {
		s := randomState(r)
		set1(t, table, s)
		there, err := read(table.conn)
		if err != nil {
			t.Fatal(err)
		}
		counted := newPicks(there.picks, there.contents, table.sets)
		if !maps.Equal(counted.leads, table.picks.leads) {
			t.Fatalf("counted %v, the kernel has %v", table.picks.leads, counted.leads)
		}
		if len(table.picks.idle) > len(counted.idle) {
			t.Fatalf("idle %v, really %v", table.picks.idle, counted.idle)
		}
	}
}
