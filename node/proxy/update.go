package proxy

import (
	"maps"
	"reflect"
	"slices"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// A Builder builds the State of a node anew, or says what changed in it where that is the endpoints of some Services
// alone: then the work is in proportion to the change, and not to the cluster. It has no clock and does no I/O.
type Builder struct {
	snapshot *model.Snapshot // of the last Build or Update, nil before
	site     site
	owners   map[Frontend]model.Key
	problems []model.Problem
}

// A Change is what differs between two States: the frontends in Gone become those in Come. In both are the same
// frontends, those of the Services that changed, and what else these Services have.
type Change struct {
	Gone, Come State
}

// Build is the function Build, and the State from which the next Update begins.
func (b *Builder) Build(s *model.Snapshot, self string, settings Settings) (State, []model.Problem) {
	state, problems, t := build(s, self, settings)
	b.snapshot, b.site, b.owners, b.problems = s, t, state.Owners, problems
	return state, problems
}

// Forget makes the next Update fail: what the last one changed did not come to where it should.
func (b *Builder) Forget() { b.snapshot = nil }

// Update returns what a Snapshot changes in the last State, with the Problems that there are then. It is false where more
// may change than the frontends of some Services: then only Build knows.
func (b *Builder) Update(s *model.Snapshot, self string, settings Settings) (Change, []model.Problem, bool) {
	keys, known := s.EndpointsSince(b.snapshot)
	if !known || self != b.site.self || !reflect.DeepEqual(settings, b.site.settings) {
		return Change{}, nil, false
	}
	c := Change{Gone: newState(), Come: newState()}
	slices.SortFunc(keys, model.CompareKeys)
	for _, key := range keys {
		if !b.service(key, s, c) {
			return Change{}, nil, false
		}
	}
	b.snapshot = s
	return c, b.problems, true
}

// service adds what one Service was, and what it is now.
func (b *Builder) service(key model.Key, s *model.Snapshot, c Change) bool {
	svc := s.Services[key]
	if svc == nil {
		return true // endpoints without a Service
	}
	was, is := newState(), newState()
	var before, now []model.Problem
	err := contain.Do(func() {
		before = b.site.add(key, svc, b.snapshot.Endpoints[key], was)
		now = b.site.add(key, svc, s.Endpoints[key], is)
	})
	if err != nil || !slices.Equal(before, now) || !same(was, is) {
		return false
	}
	for f := range was.Frontends {
		if b.owners[f] == key {
			c.Gone.Frontends[f], c.Come.Frontends[f] = was.Frontends[f], is.Frontends[f]
		}
	}
	maps.Copy(c.Gone.Hairpins, was.Hairpins)
	maps.Copy(c.Come.Hairpins, is.Hairpins)
	return true
}

// same says whether two States of one Service differ in no more than endpoints, and in hairpins that come: one that goes
// may still be that of another Service.
func same(was, is State) bool {
	for a := range was.Hairpins {
		if _, stays := is.Hairpins[a]; !stays {
			return false
		}
	}
	rest := func(s State) State {
		s.Frontends, s.Hairpins = nil, nil
		return s
	}
	return reflect.DeepEqual(rest(was), rest(is)) && maps.EqualFunc(was.Frontends, is.Frontends, func(Backends, Backends) bool { return true })
}

// Apply changes s, whose maps of frontends and hairpins must be nobody else's.
func (c Change) Apply(s State) {
	maps.Copy(s.Frontends, c.Come.Frontends)
	maps.Copy(s.Hairpins, c.Come.Hairpins)
}
