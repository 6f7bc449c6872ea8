package server

import (
	"maps"
	"slices"
	"strings"

	"hythe.dev/hythe/xds"
)

// mostGuests is how many server names that are nobody's one Envoy has the default certificate for at a time. Each costs it 26 KB;
// the oldest is withdrawn for a new one, and asked for again when a client comes with it.
const mostGuests = 1000

// guests are server names that are nobody's host, or not written as hosts are, in the order in which Envoy asked for them. Any
// client can make it ask for any.
type guests struct {
	since map[string]uint64
	last  uint64
}

// secret is what Envoy should have under the name of a Secret: the Secret itself or, for what the shared chain asks for by the
// names of its clients, the key pair for that name. nil withdraws it.
func (m *machine) secret(name string) *xds.Resource {
	if r := m.target.Get(xds.Secret, name); r != nil || !serverName(name) {
		return r
	}
	if _, ok := m.guests.since[name]; !ok && !m.target.Known(name) {
		return nil
	}
	if r := m.target.OnDemand(name); r != nil {
		return r
	}
	return m.target.Fallback(name)
}

// get is what Envoy should have of a kind under a name.
func (m *machine) get(kind xds.Kind, name string) *xds.Resource {
	if kind == xds.Secret {
		return m.secret(name)
	}
	return m.target.Get(kind, name)
}

// serverName tells names that clients may have said from those of other Secret resources.
func serverName(name string) bool { return !strings.ContainsAny(name, "/:") }

// welcome notes that Envoy asks for a Secret, and withdraws others if it is one guest too many.
func (m *machine) welcome(name string) {
	if m.target == nil || !serverName(name) || m.target.Known(name) || m.target.Get(xds.Secret, name) != nil {
		return
	}
	m.guests.last++
	m.guests.since[name] = m.guests.last
	m.withdraw()
}

func (m *machine) withdraw() {
	if len(m.guests.since) <= mostGuests {
		return
	}
	oldest := slices.SortedFunc(maps.Keys(m.guests.since), func(a, b string) int {
		return int(m.guests.since[a]) - int(m.guests.since[b])
	})
	// Some at once: to sort them for each would be a flood's work.
	for _, name := range oldest[:len(oldest)-mostGuests*9/10] {
		delete(m.guests.since, name)
		m.lanes[xds.Secret].pending[name] = true
	}
}

// settleGuests sees to it that each name that Envoy has asked for is a guest or known, after the target has changed.
func (m *machine) settleGuests() {
	l := m.lanes[xds.Secret]
	for name := range l.names {
		_, guest := m.guests.since[name]
		switch known := m.target.Known(name); {
		case known && guest:
			delete(m.guests.since, name)
		case !known && !guest && !l.absent[name]:
			m.welcome(name)
		}
		if h, ok := l.held[name]; ok && serverName(name) && m.target.Get(xds.Secret, name) == nil {
			if r := m.secret(name); r == nil || r.Version != h.version {
				l.pending[name] = true
			}
		}
	}
}
