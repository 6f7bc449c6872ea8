package proxy

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// A part is one of the maps of a State that have an address as their key.
type part uint8

const (
	ofAddresses part = iota
	ofExternals
	ofOthers
	ofHairpins
	ofPings
)

// A use is an address in one of them.
type use struct {
	of   part
	addr netip.Addr
}

// books say what of a State belongs to more than one Service. They are what an Update needs beside the State, so that what one
// Service leaves goes only if no other has it too.
type books struct {
	uses map[use]int // how many times Services and host ports ask for it
	// owners are those of all frontends, contested the frontends that a second Service wants.
	owners    map[Frontend]model.Key
	contested Set[Frontend]
	// watched are addresses that become another thing with a Service that has them as its ClusterIP, or has them no more: those
	// of claims, of other load balancers, of externalIPs, and of this node.
	watched Set[netip.Addr]
}

type pings = map[netip.Addr]netip.Addr

func newBooks() *books {
	return &books{uses: map[use]int{}, owners: map[Frontend]model.Key{}, contested: Set[Frontend]{}, watched: Set[netip.Addr]{}}
}

// clear forgets all Services.
func (k *books) clear() {
	if k != nil {
		clear(k.uses)
		clear(k.owners)
		clear(k.contested)
	}
}

// addHostPorts counts what host ports of pods ask for.
func (k *books) addHostPorts(s State) {
	for f := range s.HostPorts {
		for _, e := range s.Frontends[f].Inside {
			k.uses[use{ofHairpins, e.Addr()}]++
		}
	}
}

// watch finds the addresses to watch for.
func (k *books) watch(s *model.Snapshot, settings Settings) {
	for _, a := range settings.LocalAddresses {
		k.watched[a.Unmap()] = struct{}{}
	}
	add := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			k.watched[a.Unmap()] = struct{}{}
		}
	}
	for _, c := range s.Claims {
		_ = contain.Do(func() { add(c.Spec.Address) })
	}
	for _, svc := range s.Services.All() {
		_ = contain.Do(func() {
			for _, text := range svc.Spec.ExternalIPs {
				add(text)
			}
			for _, in := range svc.Status.LoadBalancer.Ingress {
				add(in.IP)
			}
		})
	}
}

// put adds an address to a part of the State.
func (b *serviceBuilder) put(of part, a netip.Addr) {
	b.into.set(of)[a] = struct{}{}
	b.count(of, a)
}

func (b *serviceBuilder) count(of part, a netip.Addr) {
	if b.books != nil {
		b.books.uses[use{of, a}]++
	}
}

// set is a part that is a Set.
func (s State) set(of part) Set[netip.Addr] {
	return [...]Set[netip.Addr]{ofAddresses: s.Addresses, ofExternals: s.Externals, ofOthers: s.Others, ofHairpins: s.Hairpins}[of]
}

// settle says of what some Services began or ceased to ask for whether it comes or goes.
func (u *update) settle() bool {
	for use, n := range u.delta {
		if n == 0 {
			continue
		}
		before := u.books.uses[use]
		after := before + n
		u.books.uses[use] = after
		switch {
		case (before == 0) == (after == 0):
			continue // other Services have it too
		case use.of == ofAddresses && u.hostPortOn(use.addr):
			return false
		case after == 0:
			delete(u.books.uses, use)
			u.gone(use)
		default:
			u.come(use)
		}
	}
	return true
}

func (u *update) come(x use) {
	if x.of == ofPings {
		u.change.Come.Pings[x.addr] = u.pings[x.addr]
		return
	}
	u.change.Come.set(x.of)[x.addr] = struct{}{}
}

func (u *update) gone(x use) {
	if x.of == ofPings {
		u.change.Gone.Pings[x.addr] = netip.Addr{}
		return
	}
	u.change.Gone.set(x.of)[x.addr] = struct{}{}
}

// hostPortAt says whether a pod has, or wants, a host port that f may take, or leave to it.
func (b *Builder) hostPortAt(f Frontend) bool {
	return slices.ContainsFunc(b.site.settings.HostPorts, func(p HostPort) bool { return p.Protocol == f.Protocol && p.Port == f.Port })
}

// hostPortOn says whether a pod may have a host port at an address.
func (b *Builder) hostPortOn(a netip.Addr) bool {
	return slices.Contains(b.site.settings.LocalAddresses, a) ||
		slices.ContainsFunc(b.site.settings.HostPorts, func(p HostPort) bool { return p.Addr == a })
}
