package proxy

import (
	"encoding/binary"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
)

// A Choice is how a connection comes to one of the endpoints.
type Choice uint8

const (
	// Random chooses anew for each connection.
	Random Choice = iota
	// BySource chooses by the source address: the same endpoint for each connection of a client, whichever node it
	// comes through.
	BySource
	// BySourcePort chooses by source address and port: a connection that moves to another node, as when a VIP has a
	// new owner, comes to the same endpoint there.
	BySourcePort
)

// String is the Choice as WriteText shows it.
func (c Choice) String() string {
	switch c {
	case BySource:
		return "by source"
	case BySourcePort:
		return "by source and port"
	}
	return "random"
}

// choiceOf reads v1alpha1.EndpointChoiceAnnotation. ok is false where its value means nothing.
func choiceOf(svc *corev1.Service) (c Choice, ok bool) {
	switch svc.Annotations[v1alpha1.EndpointChoiceAnnotation] {
	case "", v1alpha1.EndpointChoiceRandom:
		return Random, true
	case v1alpha1.EndpointChoiceSource:
		return BySource, true
	case v1alpha1.EndpointChoiceSourcePort:
		return BySourcePort, true
	}
	return Random, false
}

// choice is how the Service's endpoints are chosen. With session affinity a client stays with its endpoint whatever its
// ports, so that they cannot choose.
func (b *serviceBuilder) choice() Choice {
	c, ok := choiceOf(b.svc)
	if !ok {
		b.problemf("InvalidEndpointChoice", "The annotation %s is not used: write %s, %s or %s. Endpoints are chosen at random.",
			v1alpha1.EndpointChoiceAnnotation, v1alpha1.EndpointChoiceRandom, v1alpha1.EndpointChoiceSource, v1alpha1.EndpointChoiceSourcePort)
	}
	if c == BySourcePort && b.stay > 0 {
		return BySource
	}
	return c
}

// The sizes of tables of slots: primes, as the algorithm wants. Each is for so many endpoints that one has ten slots or
// more, the largest for all further. A table of another size sends most clients elsewhere, so there are few.
const (
	slotsFew, fewEndpoints   = 251, 20
	slotsSome, someEndpoints = 2039, 200
	slotsMany, manyEndpoints = 16381, 1600
	slotsMost                = 65521
)

// SlotCount is the number of slots for n endpoints.
func SlotCount(n int) int {
	switch {
	case n <= fewEndpoints:
		return slotsFew
	case n <= someEndpoints:
		return slotsSome
	case n <= manyEndpoints:
		return slotsMany
	}
	return slotsMost
}

// Slots gives each of SlotCount slots one of the endpoints, by the algorithm of Maglev (Eisenbud and others, NSDI 2016,
// section 3.4): numbers of slots differ by at most one between endpoints, and an endpoint that comes or goes moves few
// slots of the others. Whoever has the same endpoints, in any order, gets the same table. There must be at least one.
func Slots(endpoints []netip.AddrPort) []netip.AddrPort {
	eps := slices.Clone(endpoints)
	slices.SortFunc(eps, netip.AddrPort.Compare)
	eps = slices.Compact(eps)
	n := uint32(SlotCount(len(eps)))
	// Each endpoint has an order of its own in which it likes the slots: from next on, in steps of skip.
	next, skip := make([]uint32, len(eps)), make([]uint32, len(eps))
	for i, e := range eps {
		h := hashOf(e)
		next[i], skip[i] = uint32(h>>32)%n, uint32(h)%(n-1)+1
	}
	out := make([]netip.AddrPort, n)
	for filled := uint32(0); ; {
		for i, e := range eps {
			for out[next[i]].IsValid() {
				next[i] = (next[i] + skip[i]) % n
			}
			out[next[i]] = e
			if filled++; filled == n {
				return out
			}
		}
	}
}

// hashOf spreads an endpoint over 64 bits: FNV-1a, with the last step of SplitMix64 so that neighbours differ in all of
// them. It must never change: nodes of two versions would choose differently.
func hashOf(e netip.AddrPort) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range binary.BigEndian.AppendUint16(e.Addr().Unmap().AsSlice(), e.Port()) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
