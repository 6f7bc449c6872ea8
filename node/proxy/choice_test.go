package proxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
)

func someEndpointsOf(n int) []netip.AddrPort {
	var out []netip.AddrPort
	a := netip.MustParseAddr("10.244.0.2")
	for range n {
		out = append(out, netip.AddrPortFrom(a, 8080))
		a = a.Next()
	}
	return out
}

// TestSlotsSame: each node makes the same table, in whatever order it hears of the endpoints.
func TestSlotsSame(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 7, 20, 21, 150, 500} {
		eps := someEndpointsOf(n)
		want := Slots(eps)
		if len(want) != SlotCount(n) {
			t.Errorf("%d endpoints: %d slots", n, len(want))
		}
		for range 5 {
			other := append(slices.Clone(eps), eps[0])
			r.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
			before := slices.Clone(other)
			if !slices.Equal(Slots(other), want) {
				t.Errorf("%d endpoints in another order have other slots", n)
			}
			if !slices.Equal(other, before) {
				t.Error("the list that was given was sorted")
			}
		}
	}
	// Nodes of all versions agree: these must never change.
	for _, c := range []struct {
		endpoints []string
		want      string
	}{
		{[]string{"10.244.1.2:8080", "10.244.2.2:8080", "10.244.3.2:80"}, "22210012001100012002220012210112"},
		{[]string{"[fd01::2]:8080", "[fd01::3]:8080"}, "10001001100111100010001101111000"},
	} {
		var eps []netip.AddrPort
		for _, e := range c.endpoints {
			eps = append(eps, netip.MustParseAddrPort(e))
		}
		got := ""
		for _, s := range Slots(eps)[:32] {
			got += fmt.Sprint(slices.Index(eps, s))
		}
		if got != c.want {
			t.Errorf("the first slots of %v are %s, want %s", c.endpoints, got, c.want)
		}
	}
}

// TestSlotsBalanced: no endpoint has more than one slot more than another, so at most a tenth more.
func TestSlotsBalanced(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 10, 20, 21, 100, 200, 201, 1600, 1601} {
		count := map[netip.AddrPort]int{}
		for _, e := range Slots(someEndpointsOf(n)) {
			count[e]++
		}
		least, most := slices.Min(slices.Collect(maps.Values(count))), slices.Max(slices.Collect(maps.Values(count)))
		if len(count) != n || most-least > 1 || least < 10 {
			t.Errorf("%d endpoints: %d have slots, %d to %d", n, len(count), least, most)
		}
	}
}

// TestSlotsStay: an endpoint that goes takes its own slots along and few others.
func TestSlotsStay(t *testing.T) {
	for _, n := range []int{3, 5, 10, 20, 50, 200, 1000} {
		eps := someEndpointsOf(n)
		before, moved, own := Slots(eps), 0, 0
		const rounds = 5
		for i := range rounds {
			gone := eps[i*(n-1)/rounds]
			rest := slices.DeleteFunc(slices.Clone(eps), func(e netip.AddrPort) bool { return e == gone })
			for s, e := range Slots(rest) {
				switch {
				case before[s] == gone:
					own++
				case before[s] != e:
					moved++
				}
			}
		}
		all := rounds * len(before)
		t.Logf("%d endpoints, one goes: %.1f%% of the slots were its own, %.1f%% of the slots of others move", n, 100*float64(own)/float64(all), 100*float64(moved)/float64(all-own))
		if 100*moved > 12*(all-own) {
			t.Errorf("%d endpoints, one goes: %d of %d slots of others move", n, moved, all-own)
		}
	}
}

// TestChoice reads the annotation.
func TestChoice(t *testing.T) {
	for value, c := range map[string]struct {
		stay     time.Duration
		want     Choice
		problems int
	}{
		"":                 {0, Random, 0},
		"random":           {0, Random, 0},
		"source-hash":      {0, BySource, 0},
		"source-port-hash": {0, BySourcePort, 0},
		"maglev":           {0, Random, 1},
		"Source-Hash":      {time.Hour, Random, 1},
	} {
		svc := &corev1.Service{}
		svc.Annotations = map[string]string{v1alpha1.EndpointChoiceAnnotation: value}
		b := serviceBuilder{svc: svc, stay: c.stay}
		if got := b.choice(); got != c.want || len(b.problems) != c.problems {
			t.Errorf("%q: %v, %v", value, got, b.problems)
		}
	}
	svc := &corev1.Service{}
	svc.Annotations = map[string]string{v1alpha1.EndpointChoiceAnnotation: "source-port-hash"}
	if b := (serviceBuilder{svc: svc, stay: time.Hour}); b.choice() != BySource {
		t.Error("with session affinity the client's port chooses")
	}
}
