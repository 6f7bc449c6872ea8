package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/proxy"
)

// A change is what happens to one element. Where both values are there, the element is replaced: the kernel does not
// change values in place.
type change struct {
	element
	old, new       string
	remove, insert bool
}

// Phases order the changes, so that between two batches, and in a cold start of many, no packet meets half of a
// Service: endpoints are there before what leads to them and go after it, and what refuses comes last.
const (
	phaseEndpoints = iota
	phaseFrontends
	phaseAddresses
	phaseRemoved
)

// difference returns the changes that turn have into want. Of what have holds, only what keys names goes.
func difference(keys, have, want contents) []change {
	var out []change
	for e := range keys {
		_, stays := want[e]
		if old, there := have[e]; there && !stays {
			out = append(out, change{element: e, old: old, remove: true})
		}
	}
	for e, value := range want {
		old, there := have[e]
		if !there || old != value {
			out = append(out, change{element: e, old: old, new: value, remove: there, insert: true})
		}
	}
	return out
}

// order sorts changes by phase, set and key.
func order(changes []change, byName map[string]set) {
	phase := func(c change) int {
		p := byName[c.set].phase
		if p != phaseFrontends && !c.insert {
			return phaseRemoved
		}
		return p
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(phase(a), phase(b)), strings.Compare(a.set, b.set), strings.Compare(a.key, b.key))
	})
}

// changeMessages returns the messages for changes that order has sorted: set by set, first what goes, then what comes.
func changeMessages(changes []change, byName map[string]set) []netlink.Message {
	var out []netlink.Message
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].set == changes[0].set {
			n++
		}
		var removed, inserted []element
		var values []string
		for _, c := range changes[:n] {
			if c.remove {
				removed = append(removed, c.element)
			}
			if c.insert {
				inserted, values = append(inserted, c.element), append(values, c.new)
			}
		}
		s := byName[changes[0].set]
		out = append(out, elementMessages(unix.NFT_MSG_DELSETELEM, s, removed, nil)...)
		out = append(out, elementMessages(unix.NFT_MSG_NEWSETELEM, s, inserted, values)...)
		changes = changes[n:]
	}
	return out
}

// only returns the parts of s that differ from those of o. The maps are new, what is in them is shared.
func only(s, o proxy.State) proxy.State {
	out := proxy.State{
		Frontends: map[proxy.Frontend]proxy.Backends{},
		Addresses: missing(s.Addresses, o.Addresses),
		Pings:     map[netip.Addr]netip.Addr{},
		PodRanges: missing(s.PodRanges, o.PodRanges),
		Hairpins:  missing(s.Hairpins, o.Hairpins),
		Overlays:  missing(s.Overlays, o.Overlays),
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

// String names an element as nft does: "frontends4 10.96.0.10 . 6 . 80".
func (e element) String() string {
	for _, s := range sets() {
		if s.name == e.set {
			return e.set + " " + s.key.text(e.key)
		}
	}
	return fmt.Sprintf("%s %x", e.set, e.key)
}

// text shows a value of these types.
func (d datatypes) text(value string) string {
	if len(value) != int(d.size()) {
		return fmt.Sprintf("%x", value)
	}
	var parts []string
	for _, t := range d {
		part := value[:t.Bytes]
		switch t.GetNFTMagic() {
		case nftables.TypeIPAddr.GetNFTMagic(), nftables.TypeIP6Addr.GetNFTMagic():
			a, _ := netip.AddrFromSlice([]byte(part))
			parts = append(parts, a.String())
		case nftables.TypeInetProto.GetNFTMagic():
			parts = append(parts, fmt.Sprint(part[0]))
		case nftables.TypeInetService.GetNFTMagic():
			parts = append(parts, fmt.Sprint(binary.BigEndian.Uint16([]byte(part))))
		case nftables.TypeMark.GetNFTMagic():
			parts = append(parts, fmt.Sprint(binary.NativeEndian.Uint32([]byte(part))))
		default:
			parts = append(parts, strings.TrimRight(part, "\x00"))
		}
		value = value[min(len(value), int((t.Bytes+3)&^3)):]
	}
	return strings.Join(parts, " . ")
}
