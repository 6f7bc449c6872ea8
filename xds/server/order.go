package server

import "hythe.dev/hythe/xds"

// A state says whether something is to be sent for a name.
type state uint8

const (
	nothing state = iota // Envoy has what it should
	due                  // to be sent now
	waiting              // to be sent after something else
	aside                // not to be sent: Envoy refused it, or something that it needs
)

// want says what is to be sent for a name of a lane.
func (m *machine) want(l *lane, name string) (item, state) {
	target := m.get(l.kind, name)
	have, isHeld := l.held[name]
	i := item{name: name, resource: target}
	switch {
	case target != nil && !l.wildcard && !l.names[name]:
		return i, nothing
	case target != nil && isHeld && have.version == target.Version && !l.again[name]:
		return i, nothing
	case target == nil && l.wildcard && !isHeld:
		return i, nothing
	case target == nil && !l.wildcard && (l.absent[name] || !l.names[name]):
		return i, nothing
	case target == nil && isHeld && !l.wildcard && (l.kind != xds.Secret || !serverName(name)):
		// Envoy unsubscribes from what it holds when the cluster or listener that named it is gone; from what clients named, never.
		return i, nothing
	}
	if r, ok := l.refused[name]; ok && r.item.version() == i.version() && m.now.Before(r.again) {
		return i, aside
	}
	return i, m.gate(l, i)
}

// gate says whether what an item needs is there.
func (m *machine) gate(l *lane, i item) state {
	switch {
	case l.kind == xds.Cluster && i.resource == nil:
		return m.gateRemoval(i.name)
	case l.kind == xds.Listener && i.resource != nil && i.resource.Last:
		if !m.settled(true) {
			return waiting
		}
	case l.kind == xds.Listener && i.resource != nil:
		for _, cluster := range i.resource.Clusters {
			if m.clusterState(cluster) == waiting {
				return waiting
			}
		}
	case l.kind == xds.VirtualHost:
		return m.gateHost(i)
	}
	return due
}

// gateRemoval lets a cluster go when no virtual host has used it for the grace period: a worker may still have a
// request in hand that was routed before.
func (m *machine) gateRemoval(cluster string) state {
	if m.inUse(cluster) {
		delete(m.unused, cluster)
		return waiting
	}
	since, ok := m.unused[cluster]
	if !ok {
		m.unused[cluster] = m.now
		since = m.now
	}
	if m.now.Before(since.Add(m.grace)) {
		return waiting
	}
	return due
}

// A memo holds answers that stay the same until the next message.
type memo struct {
	used           map[string]bool
	listenersReady state
}

// inUse reports whether a virtual host that Envoy has, or may get, refers to the cluster. A host whose content is
// not known, from an earlier stream, may refer to all.
func (m *machine) inUse(cluster string) bool {
	hosts := m.lanes[xds.VirtualHost]
	if m.memo.used == nil {
		m.memo.used = map[string]bool{}
		use := func(r *xds.Resource) {
			for _, name := range r.Needs {
				m.memo.used[name] = true
			}
		}
		unknown := !hosts.asked
		for _, h := range hosts.held {
			if h.resource == nil {
				unknown = true
				continue
			}
			use(h.resource)
		}
		if hosts.flight != nil {
			for _, i := range hosts.flight.items {
				if i.resource != nil {
					use(i.resource)
				}
			}
		}
		for _, h := range m.lanes[xds.Listener].held {
			if h.resource == nil {
				continue
			}
			for _, name := range h.resource.Clusters {
				m.memo.used[name] = true
			}
		}
		m.memo.used[anyCluster] = unknown
	}
	return m.memo.used[cluster] || m.memo.used[anyCluster]
}

// anyCluster is no name of a cluster.
const anyCluster = ""

// gateHost lets a virtual host go when the listeners are as they should be, so that a new host is first seen with
// its certificate, and its clusters are there with their endpoints.
func (m *machine) gateHost(i item) state {
	if !m.lanes[xds.VirtualHost].asked {
		return waiting // Envoy has yet to say which it has
	}
	if m.memo.listenersReady == nothing {
		m.memo.listenersReady = m.listeners()
	}
	if m.memo.listenersReady != due {
		return waiting
	}
	if i.resource == nil {
		return due
	}
	result := due
	for _, cluster := range i.resource.Needs {
		switch m.clusterState(cluster) {
		case aside:
			return aside
		case waiting:
			result = waiting
		}
	}
	return result
}

// listeners is due when Envoy has the listeners and the secrets that they need.
func (m *machine) listeners() state {
	l, secrets := m.lanes[xds.Listener], m.lanes[xds.Secret]
	if !m.laneSettled(l, true) {
		return waiting
	}
	for _, h := range l.held {
		if h.resource == nil {
			continue
		}
		for _, name := range h.resource.Needs {
			if m.target.Get(xds.Secret, name) == nil {
				continue
			}
			_, refused := secrets.refused[name]
			if _, isHeld := secrets.held[name]; !isHeld && !refused {
				return waiting
			}
		}
	}
	return due
}

// clusterState says whether Envoy can route to a cluster: it was acknowledged and its endpoints after it.
func (m *machine) clusterState(name string) state {
	l := m.lanes[xds.Cluster]
	target := m.target.Get(xds.Cluster, name)
	have, isHeld := l.held[name]
	if target == nil {
		return aside // nobody will send it
	}
	if l.inFlight(name) || len(l.halves) > 0 {
		return waiting
	}
	_, refused := l.refused[name]
	switch {
	case !isHeld && refused:
		return aside
	case !isHeld || (have.version != target.Version && !refused):
		return waiting
	}
	endpoints := m.lanes[xds.Endpoints]
	if have.version != target.Version { // refused, and the version before still serves
		if target = have.resource; target == nil {
			return due
		}
	}
	for _, need := range target.Needs {
		if _, refused := endpoints.refused[need]; m.fresh[need] || refused {
			continue
		}
		// On a new stream it is not known whether the cluster was told its endpoints. Tell it.
		if endpoints.names[need] && !endpoints.inFlight(need) {
			endpoints.again[need] = true
			endpoints.pending[need] = true
		}
		return waiting
	}
	secrets := m.lanes[xds.Secret]
	for _, need := range target.Secrets { // Envoy warms the cluster until it has them
		_, refused := secrets.refused[need]
		if _, isHeld := secrets.held[need]; !isHeld && !refused && m.target.Get(xds.Secret, need) != nil {
			return waiting
		}
	}
	return due
}

func (l *lane) inFlight(name string) bool { return l.flight != nil && l.flight.names[name] }

// settled reports whether Envoy has acknowledged all it should have, but for what was set aside, for clusters that
// wait to be removed and, if asked so, for what comes last.
func (m *machine) settled(butLast bool) bool {
	if m.target == nil {
		return false
	}
	for _, l := range m.lanes {
		if !m.laneSettled(l, butLast) {
			return false
		}
	}
	return true
}

func (m *machine) laneSettled(l *lane, butLast bool) bool {
	named := l.kind == xds.Endpoints || l.kind == xds.Secret
	if l.flight != nil || len(l.halves) > 0 || (!l.asked && !named) {
		return false
	}
	for name := range l.pending {
		r := m.target.Get(l.kind, name)
		if (l.kind == xds.Cluster && r == nil) || (butLast && r != nil && r.Last) {
			continue
		}
		if _, s := m.want(l, name); s == due || s == waiting {
			return false
		}
	}
	return true
}
