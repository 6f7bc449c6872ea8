package proxy

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// A Builder builds the State of a node anew, or says what changed in it where that is some Services and their endpoints:
// then the work is in proportion to the change, and not to the cluster. It has no clock and does no I/O.
type Builder struct {
	snapshot *model.Snapshot // of the last Build or Update, nil before
	site     site
	books    *books
	problems []model.Problem
}

// A Change is what differs between two States. What is in Gone and not in Come goes; what is in Come is there afterwards.
type Change struct {
	Gone, Come State
}

// Build is the function Build, and the State from which the next Update begins.
func (b *Builder) Build(s *model.Snapshot, self string, settings Settings) (State, []model.Problem) {
	books := newBooks()
	state, problems, t := build(s, self, settings, books)
	books.addHostPorts(state)
	books.watch(s, settings)
	b.snapshot, b.site, b.problems, b.books = s, t, problems, books
	return state, problems
}

// Forget makes the next Update fail: what the last one changed did not come to where it should.
func (b *Builder) Forget() { b.snapshot = nil }

// Update returns what a Snapshot changes in the last State, with the Problems that there are then. It is false where more
// may change than what is some Services' own: then only Build knows.
func (b *Builder) Update(s *model.Snapshot, self string, settings Settings) (Change, []model.Problem, bool) {
	keys, known := s.ServicesSince(b.snapshot)
	if !known || self != b.site.self || !reflect.DeepEqual(settings, b.site.settings) {
		return Change{}, nil, false
	}
	u := update{Builder: b, change: Change{Gone: newState(), Come: newState()}, pings: newState().Pings, delta: map[use]int{}}
	slices.SortFunc(keys, model.CompareKeys)
	for _, key := range keys {
		if !u.service(key, b.snapshot.Services.Get(key), s.Services.Get(key), s) {
			b.Forget()
			return Change{}, nil, false
		}
	}
	if !u.settle() {
		b.Forget()
		return Change{}, nil, false
	}
	b.snapshot = s
	return u.change, b.problems, true
}

// An update is the work of one Update.
type update struct {
	*Builder
	change Change
	delta  map[use]int // how many times more Services ask for something
	pings  pings
}

// service adds what one Service was, and what it is now; nil is one that is not there.
func (u *update) service(key model.Key, old, svc *corev1.Service, s *model.Snapshot) bool {
	if old == nil && svc == nil {
		return true // endpoints without a Service
	}
	if old != svc && !u.alone(old, svc) {
		return false
	}
	was, is, had, has := newState(), newState(), newBooks(), newBooks()
	var before, now []model.Problem
	err := contain.Do(func() {
		if old != nil {
			before = u.site.add(key, old, u.snapshot.Endpoints.Get(key), was, had)
		}
		if svc != nil {
			now = u.site.add(key, svc, s.Endpoints.Get(key), is, has)
		}
	})
	if err != nil || !slices.Equal(before, now) {
		return false
	}
	for use, n := range had.uses {
		u.delta[use] -= n
	}
	for use, n := range has.uses {
		u.delta[use] += n
	}
	for vip, by := range is.Pings {
		u.pings[vip] = by
	}
	sameAge := old == svc || old != nil && svc != nil && old.CreationTimestamp.Equal(&svc.CreationTimestamp)
	return u.frontends(key, was, is, sameAge)
}

// alone says whether a Service may change without that another one is served differently for it, frontends apart: addresses
// that somebody besides Services has, or wants, are judged together.
func (b *Builder) alone(old, svc *corev1.Service) bool {
	alone := true
	err := contain.Do(func() {
		for _, o := range []*corev1.Service{old, svc} {
			if o == nil {
				continue
			}
			alone = alone && len(o.Spec.ExternalIPs) == 0 && len(statusAddrs(o)) == 0
			for _, a := range model.ClusterIPs(o) {
				_, watched := b.books.watched[a]
				alone = alone && !watched
			}
		}
	})
	return err == nil && alone
}

// frontends adds the frontends that a Service had, and those that it has. Where several Services want one, only Build says
// who gets it.
func (u *update) frontends(key model.Key, was, is State, sameAge bool) bool {
	for f, b := range was.Frontends {
		_, stays := is.Frontends[f]
		_, contested := u.books.contested[f]
		if contested && (!stays || !sameAge) {
			return false
		}
		if u.books.owners[f] != key {
			continue
		}
		u.change.Gone.Frontends[f], u.change.Gone.Owners[f] = b, key
		if !stays {
			if u.hostPortAt(f) {
				return false
			}
			delete(u.books.owners, f)
		}
	}
	for f, b := range is.Frontends {
		_, had := was.Frontends[f]
		switch owner := u.books.owners[f]; {
		case owner == key:
		case had: // another one has it, as before
			continue
		case owner != (model.Key{}) || u.hostPortAt(f):
			return false
		default:
			u.books.owners[f] = key
		}
		u.change.Come.Frontends[f], u.change.Come.Owners[f] = b, key
	}
	return true
}

// Apply changes s, whose maps must be nobody else's.
func (c Change) Apply(s State) {
	for f := range c.Gone.Frontends {
		if _, stays := c.Come.Frontends[f]; !stays {
			delete(s.Frontends, f)
			delete(s.Owners, f)
		}
	}
	maps.Copy(s.Frontends, c.Come.Frontends)
	maps.Copy(s.Owners, c.Come.Owners)
	apply(s.Addresses, c.Gone.Addresses, c.Come.Addresses)
	apply(s.Externals, c.Gone.Externals, c.Come.Externals)
	apply(s.Others, c.Gone.Others, c.Come.Others)
	apply(s.Hairpins, c.Gone.Hairpins, c.Come.Hairpins)
	apply(s.Pings, c.Gone.Pings, c.Come.Pings)
}

func apply[V any](to, gone, come map[netip.Addr]V) {
	for a := range gone {
		if _, stays := come[a]; !stays {
			delete(to, a)
		}
	}
	maps.Copy(to, come)
}

// Own returns s with maps that Apply may change. What is in them is shared.
func (s State) Own() State {
	s.Frontends, s.Owners, s.Pings = maps.Clone(s.Frontends), maps.Clone(s.Owners), maps.Clone(s.Pings)
	s.Addresses, s.Externals, s.Others, s.Hairpins = maps.Clone(s.Addresses), maps.Clone(s.Externals), maps.Clone(s.Others), maps.Clone(s.Hairpins)
	return s
}
