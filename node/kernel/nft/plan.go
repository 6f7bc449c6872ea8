package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// A change is what happens to one element. Where both values are there, the element is replaced: the kernel does not
// change values in place.
type change struct {
	nfnetlink.Element
	old, new       string
	remove, insert bool
	phase          ruleset.Phase // see order
}

// leads says whether the element is one that leads to a chain. order has to have seen it.
func (c change) leads() bool { return c.phase == ruleset.PhaseFrontends }

// difference returns the changes that turn have into want. Of what have holds, only what keys names goes.
func difference(keys, have, want nfnetlink.Contents) []change {
	var out []change
	if len(have) == 0 {
		out = make([]change, 0, len(want))
	}
	for e := range keys {
		_, stays := want[e]
		if old, there := have[e]; there && !stays {
			out = append(out, change{Element: e, old: old, remove: true})
		}
	}
	for e, value := range want {
		old, there := have[e]
		if !there || old != value {
			out = append(out, change{Element: e, old: old, new: value, remove: there, insert: true})
		}
	}
	return out
}

// order sorts changes by phase, set and key.
func order(changes []change, byName map[string]ruleset.Set) {
	for i := range changes {
		c, s := &changes[i], byName[changes[i].Set]
		c.phase = s.Phase
		if !s.Interval && s.Phase != ruleset.PhaseFrontends && !c.insert { // the kernel takes no range that overlaps one which is still there
			c.phase = ruleset.PhaseRemoved
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.phase != b.phase {
			return cmp.Compare(a.phase, b.phase)
		}
		if a.Set != b.Set {
			return strings.Compare(a.Set, b.Set)
		}
		return strings.Compare(a.Key, b.Key)
	})
}

// only returns the parts of s that differ from those of o. The maps are new, what is in them is shared.
func only(s, o proxy.State) proxy.State {
	out := proxy.State{
		Frontends: map[proxy.Frontend]proxy.Backends{},
		HostPorts: map[proxy.Frontend]model.Key{},
		Addresses: missing(s.Addresses, o.Addresses),
		Externals: missing(s.Externals, o.Externals),
		Others:    missing(s.Others, o.Others),
		Pings:     map[netip.Addr]netip.Addr{},
		PodRanges: missing(s.PodRanges, o.PodRanges),
		Hairpins:  missing(s.Hairpins, o.Hairpins),
		Overlays:  missing(s.Overlays, o.Overlays),

		ServiceRanges:  missing(s.ServiceRanges, o.ServiceRanges),
		NodePortRanges: missing(s.NodePortRanges, o.NodePortRanges),
	}
	for f, b := range s.Frontends {
		if other, there := o.Frontends[f]; !there || !b.Equal(other) {
			out.Frontends[f] = b
		}
	}
	for f, pod := range s.HostPorts {
		if _, there := o.HostPorts[f]; !there {
			out.HostPorts[f] = pod
		}
	}
	for vip, by := range s.Pings {
		if o.Pings[vip] != by {
			out.Pings[vip] = by
		}
	}
	return out
}

func missing[T comparable](s, o proxy.Set[T]) proxy.Set[T] {
	out := proxy.Set[T]{}
	for k := range s {
		if _, there := o[k]; !there {
			out[k] = struct{}{}
		}
	}
	return out
}
