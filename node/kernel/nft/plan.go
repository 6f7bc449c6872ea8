package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"

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

// changeMessages returns the messages for changes that order has sorted: set by set, first what goes, then what comes.
func changeMessages(changes []change, byName map[string]ruleset.Set) []netlink.Message {
	var out []netlink.Message
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].Set == changes[0].Set {
			n++
		}
		var removed, inserted []nfnetlink.Element
		var values []string
		for _, c := range changes[:n] {
			if c.remove {
				removed = append(removed, c.Element)
			}
			if c.insert {
				inserted, values = append(inserted, c.Element), append(values, c.new)
			}
		}
		s := byName[changes[0].Set].Set
		out = append(out, nfnetlink.DeleteElements(s, removed)...)
		out = append(out, nfnetlink.NewElements(s, inserted, values)...)
		changes = changes[n:]
	}
	return out
}

// only returns the parts of s that differ from those of o. The maps are new, what is in them is shared.
func only(s, o proxy.State) proxy.State {
	out := proxy.State{
		Frontends: map[proxy.Frontend]proxy.Backends{},
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
