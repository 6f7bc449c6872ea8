package conntrack

import (
	"maps"
	"net/netip"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// maxLingering is how many ways are remembered. What lasts by further ones is not reset when its endpoint goes.
const maxLingering = 10000

// A way is by which frontend connections came to an endpoint.
type way struct {
	frontend proxy.Frontend
	endpoint netip.AddrPort
}

// lingering are ways by which nothing new comes to an endpoint that is there still: its Service has another targetPort by now, or lost the
// frontend. What lasts by such a way is asked for when the endpoint goes, which no change of its frontend tells any more.
type lingering struct {
	of map[model.Key]map[way]struct{} // by Service
	n  int
}

// note remembers a way.
func (l *lingering) note(owner model.Key, w way) {
	if l.n >= maxLingering {
		return
	}
	if l.of == nil {
		l.of = map[model.Key]map[way]struct{}{}
	}
	if l.of[owner] == nil {
		l.of[owner] = map[way]struct{}{}
	}
	before := len(l.of[owner])
	l.of[owner][w] = struct{}{}
	l.n += len(l.of[owner]) - before
}

// change forgets the ways to endpoints that are gone when before becomes now, and asks q for them. It remembers new ones.
func (l *lingering) change(q *question, before, now proxy.State, ways []way) {
	for _, w := range ways {
		if owner, is := ownerOf(w.frontend, before, now); is {
			l.note(owner, w)
		}
	}
	if l.n == 0 {
		return
	}
	resets, alive := map[model.Key]bool{}, map[model.Key]proxy.Set[netip.Addr]{}
	for _, s := range []proxy.State{before, now} {
		said := map[model.Key]bool{}
		for f, owner := range s.Owners {
			if _, is := l.of[owner]; !is {
				continue
			}
			if alive[owner] = (proxy.Set[netip.Addr]{}); f.Protocol == proxy.TCP {
				said[owner] = said[owner] || s.Frontends[f].Reset
			}
		}
		maps.Copy(resets, said) // what is said now counts, if anything is
	}
	now.AddEndpoints(alive)
	for owner, there := range alive {
		reset, said := resets[owner]
		l.forget(q, owner, pods(there), reset || !said)
	}
}

// forget forgets the ways of a Service to endpoints that are not alive, and asks for them; all, and for none, if it resets nothing.
func (l *lingering) forget(q *question, owner model.Key, alive pods, reset bool) {
	for w := range l.of[owner] {
		if reset && alive.has(w.endpoint.Addr()) {
			continue
		}
		delete(l.of[owner], w)
		if l.n--; !reset {
			continue
		}
		there := maps.Clone(alive)
		maps.Copy(there, q.some[w.frontend])
		q.some[w.frontend] = there
		q.gone[filter{six: w.frontend.Addr.Is6(), protocol: proxy.TCP, endpoint: w.endpoint}] = struct{}{}
	}
	if len(l.of[owner]) == 0 {
		delete(l.of, owner)
	}
}

// ownerOf is the Service that a frontend belongs to, or did before.
func ownerOf(f proxy.Frontend, before, now proxy.State) (model.Key, bool) {
	if owner, is := now.Owners[f]; is {
		return owner, true
	}
	owner, is := before.Owners[f]
	return owner, is
}
