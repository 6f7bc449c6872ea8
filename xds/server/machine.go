package server

import (
	"maps"
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"hythe.dev/hythe/xds"
)

const (
	// chunk is how many resources one response holds at most.
	chunk = 500
	// maxPace is the longest pause after a response that Envoy was slow to acknowledge.
	maxPace = 100 * time.Millisecond
	// Something refused is tried again after firstRetry, which doubles up to lastRetry: some reasons, such as a
	// port in use, pass.
	firstRetry, lastRetry = 5 * time.Second, 5 * time.Minute
)

// A machine decides what one Envoy is sent on one stream. It does no I/O, has no goroutine and knows the time only
// from its caller: after Set or Receive, call Send; call Send again at Wake.
type machine struct {
	grace  time.Duration
	target *xds.Resources // nil until the first Set
	lanes  [6]*lane       // by xds.Kind
	now    time.Time
	sent   uint64 // responses so far; also the nonce

	// clusterSent is by endpoints name the number of the last response with a cluster that uses it, and fresh
	// those that Envoy acknowledged in a later response: Envoy asks for endpoints only once by name, and a new or
	// changed cluster waits until it is told them anew (envoy#47302).
	clusterSent map[string]uint64
	fresh       map[string]bool
	// unused is since when Envoy has had no virtual host with a cluster that is to go.
	unused map[string]time.Time
	// guests are names of Secrets that Envoy was asked for by clients.
	guests guests
	// What gates ask often, until something happens: see memo.
	memo memo
}

// A lane is one resource type of the stream.
type lane struct {
	kind     xds.Kind
	wildcard bool            // Envoy wants all; else only what is in names
	asked    bool            // Envoy subscribed to the type
	names    map[string]bool // subscribed by name
	held     map[string]held
	pending  map[string]bool // names for which something may have to be sent
	again    map[string]bool // names to send although held
	absent   map[string]bool // names that Envoy was told do not exist
	flight   *flight         // the response that is not acknowledged
	halves   [][]item        // parts of refused responses, to be sent first
	refused  map[string]refusal
	tries    map[string]int // of Secrets in refused responses
	empty    bool           // Envoy waits for an answer even if it is empty
	paused   time.Time      // nothing is sent before
	counts   counts
}

// held is what Envoy has. The resource is nil if it is from an earlier stream and not the target's version.
type held struct {
	version  string
	resource *xds.Resource
}

// An item is a resource in a response, or the removal of the named one if resource is nil.
type item struct {
	name     string
	resource *xds.Resource
}

func (i item) version() string {
	if i.resource == nil {
		return ""
	}
	return i.resource.Version
}

type flight struct {
	number uint64
	items  []item
	names  map[string]bool
	at     time.Time
}

// A refusal is a version of a resource that Envoy did not take.
type refusal struct {
	item   item
	reason string
	wait   time.Duration
	again  time.Time
}

type counts struct{ pushes, resources, acks, nacks int }

func newMachine(grace time.Duration) *machine {
	m := &machine{
		grace: grace, clusterSent: map[string]uint64{}, fresh: map[string]bool{}, unused: map[string]time.Time{},
		guests: guests{since: map[string]uint64{}},
	}
	for _, kind := range xds.Kinds() {
		m.lanes[kind] = &lane{
			kind:     kind,
			wildcard: kind == xds.Cluster || kind == xds.Listener || kind == xds.VirtualHost,
			names:    map[string]bool{}, held: map[string]held{}, pending: map[string]bool{}, again: map[string]bool{},
			absent: map[string]bool{}, refused: map[string]refusal{}, tries: map[string]int{},
		}
	}
	return m
}

// Set replaces what Envoy should have. It looks only at what is another resource than before, since what is not was compared
// then, or when Envoy said that it has it.
func (m *machine) Set(target *xds.Resources) {
	before := m.target
	if before == target {
		return
	}
	m.target = target
	m.memo = memo{}
	for name := range m.unused {
		if target.Get(xds.Cluster, name) != nil {
			delete(m.unused, name)
		}
	}
	for _, l := range m.lanes {
		if before == nil {
			m.compareAll(l)
			continue
		}
		for name := range target.Others(l.kind, before) {
			if r := target.Get(l.kind, name); r != nil {
				m.compare(l, r)
			} else {
				m.leave(l, name)
			}
		}
	}
	if before == nil || !target.SameSecrets(before) {
		m.settleGuests()
	}
}

// compareAll is compare for all resources, and leave for those that Envoy has beside them.
func (m *machine) compareAll(l *lane) {
	for r := range m.target.All(l.kind) {
		m.compare(l, r)
	}
	for name := range l.held {
		if m.target.Get(l.kind, name) == nil {
			m.leave(l, name)
		}
	}
}

// leave notes that a resource is no part of the target.
func (m *machine) leave(l *lane, name string) {
	if _, isHeld := l.held[name]; isHeld && (l.kind != xds.Secret || !serverName(name)) {
		l.pending[name] = true
	}
}

// compare notes that a resource of the target differs from what Envoy has, or learns what it is that Envoy has.
func (m *machine) compare(l *lane, r *xds.Resource) {
	h, ok := l.held[r.Name]
	if ok && h.version == r.Version {
		l.held[r.Name] = held{r.Version, r}
		return
	}
	if l.wildcard || l.names[r.Name] {
		l.pending[r.Name] = true
	}
}

// Receive takes a message of Envoy.
func (m *machine) Receive(now time.Time, request *discoveryv3.DeltaDiscoveryRequest) {
	m.now = now
	m.memo = memo{}
	kind, ok := xds.KindOf(request.GetTypeUrl())
	if !ok {
		return
	}
	l := m.lanes[kind]
	first := !l.asked
	if first {
		m.start(l, request.GetInitialResourceVersions())
	}
	for _, name := range request.GetResourceNamesUnsubscribe() {
		delete(l.names, name)
		delete(l.held, name)
		delete(l.again, name)
		delete(l.refused, name)
		delete(l.tries, name)
		delete(l.absent, name)
		switch kind {
		case xds.Endpoints:
			delete(m.fresh, name)
		case xds.Secret:
			delete(m.guests.since, name)
		}
	}
	for _, name := range request.GetResourceNamesSubscribe() {
		if l.wildcard {
			break
		}
		l.names[name] = true
		l.pending[name] = true
		delete(l.absent, name)
		if kind == xds.Secret {
			m.welcome(name)
		}
		if !first {
			l.again[name] = true // to ask is to want an answer
		}
	}
	if f := l.flight; f != nil && request.GetResponseNonce() == strconv.FormatUint(f.number, 10) {
		l.flight = nil
		if request.GetErrorDetail() != nil {
			m.refuse(l, f, request.GetErrorDetail().GetMessage())
		} else {
			m.acknowledge(l, f)
		}
	}
}

// start begins a lane with what Envoy says that it has.
func (m *machine) start(l *lane, versions map[string]string) {
	l.asked = true
	l.empty = len(versions) == 0 && l.kind == xds.Cluster
	for name, version := range versions {
		l.held[name] = held{version: version}
		l.pending[name] = true
	}
	if m.target == nil {
		return
	}
	for r := range m.target.All(l.kind) {
		m.compare(l, r)
	}
}

func (m *machine) acknowledge(l *lane, f *flight) {
	l.counts.acks++
	for _, i := range f.items {
		delete(l.refused, i.name)
		delete(l.tries, i.name)
		if i.resource == nil {
			delete(l.held, i.name)
			delete(m.unused, i.name)
		} else if l.wildcard || l.names[i.name] {
			l.held[i.name] = held{i.version(), i.resource}
		}
		if l.kind == xds.Endpoints && f.number > m.clusterSent[i.name] {
			m.fresh[i.name] = true
		}
		l.pending[i.name] = true // the target may have changed meanwhile
	}
	if l.kind == xds.VirtualHost {
		// Envoy rebuilds the whole table for each response: leave it half of its time for other work.
		l.paused = m.now.Add(min(m.now.Sub(f.at), maxPace))
	}
}

// refuse halves a refused response or, if it had a single resource, sets that one aside.
func (m *machine) refuse(l *lane, f *flight, reason string) {
	l.counts.nacks++
	if l.kind == xds.Secret {
		for _, i := range f.items {
			l.tries[i.name]++
		}
	}
	if n := len(f.items); n > 1 {
		l.halves = append([][]item{f.items[:n/2], f.items[n/2:]}, l.halves...)
		return
	}
	for _, i := range f.items {
		l.pending[i.name] = true
		if l.kind == xds.Endpoints && f.number < m.clusterSent[i.name] {
			continue // a cluster came after them and waits to be told, if only what is refused
		}
		wait := firstRetry
		if old, ok := l.refused[i.name]; ok && old.item.version() == i.version() {
			wait = min(2*old.wait, lastRetry)
		}
		l.refused[i.name] = refusal{item: i, reason: reason, wait: wait, again: m.now.Add(wait)}
	}
}

// Send returns the responses that are due, in order.
func (m *machine) Send(now time.Time) []*discoveryv3.DeltaDiscoveryResponse {
	m.now = now
	m.memo = memo{}
	if m.target == nil {
		return nil
	}
	var out []*discoveryv3.DeltaDiscoveryResponse
	// Virtual hosts first: those that have to wait may ask for endpoints.
	for i := range m.lanes {
		l := m.lanes[(i+int(xds.VirtualHost))%len(m.lanes)]
		if !l.asked || l.flight != nil || now.Before(l.paused) {
			continue
		}
		items := m.take(l)
		if len(items) == 0 && !l.empty {
			continue
		}
		l.empty = false
		out = append(out, m.respond(l, items))
	}
	return out
}

// take removes from a lane what its next response holds.
func (m *machine) take(l *lane) []item {
	for len(l.halves) > 0 {
		half := l.halves[0]
		l.halves = l.halves[1:]
		var items []item
		for _, old := range half {
			if i, state := m.want(l, old.name); state == due && i.version() == old.version() {
				items = append(items, i)
				delete(l.pending, old.name)
			} else {
				l.pending[old.name] = true
			}
		}
		if len(items) > 0 {
			return items
		}
	}
	var items []item
	for _, name := range slices.Sorted(maps.Keys(l.pending)) {
		i, state := m.want(l, name)
		switch {
		case state == nothing:
			delete(l.pending, name)
		case state == due && len(items) < chunk:
			items = append(items, i)
			delete(l.pending, name)
		}
	}
	return items
}

func (m *machine) respond(l *lane, items []item) *discoveryv3.DeltaDiscoveryResponse {
	m.sent++
	m.memo = memo{}
	nonce := strconv.FormatUint(m.sent, 10)
	l.flight = &flight{number: m.sent, items: items, names: map[string]bool{}, at: m.now}
	l.counts.pushes++
	l.counts.resources += len(items)
	out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: l.kind.TypeURL(), Nonce: nonce, SystemVersionInfo: nonce}
	for _, i := range items {
		l.flight.names[i.name] = true
		delete(l.again, i.name)
		if i.resource == nil {
			l.absent[i.name] = true
			out.RemovedResources = append(out.RemovedResources, i.name)
			continue
		}
		resource := &discoveryv3.Resource{Name: i.name, Version: i.version(), Resource: m.body(l.kind, i)}
		if l.kind == xds.VirtualHost {
			resource.Aliases = []string{i.name}
		}
		if n := l.tries[i.name]; n > 0 {
			resource.Resource = anew(resource.Resource, n)
		}
		out.Resources = append(out.Resources, resource)
		m.follow(l.kind, i.resource)
	}
	return out
}

// follow notes what must be sent because r is.
func (m *machine) follow(kind xds.Kind, r *xds.Resource) {
	switch kind {
	case xds.Cluster:
		endpoints := m.lanes[xds.Endpoints]
		for _, name := range r.Needs {
			m.clusterSent[name] = m.sent
			delete(m.fresh, name)
			delete(endpoints.refused, name) // also a refusal ends the cluster's wait
			if endpoints.names[name] {
				endpoints.again[name] = true
				endpoints.pending[name] = true
			}
		}
	case xds.RouteTable:
		// Envoy does not ask for the hosts of a table again.
		hosts := m.lanes[xds.VirtualHost]
		for name := range hosts.held {
			hosts.again[name] = true
			hosts.pending[name] = true
		}
	}
}

// Wake returns when Send is to be called again if nothing else happens, or the zero time.
func (m *machine) Wake() time.Time {
	var wake time.Time
	consider := func(t time.Time) {
		// What is not later was just tried and waits for a message.
		if t.After(m.now) && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	for _, l := range m.lanes {
		if len(l.pending) > 0 || len(l.halves) > 0 {
			consider(l.paused)
		}
		for _, r := range l.refused {
			consider(r.again)
		}
	}
	for _, since := range m.unused {
		consider(since.Add(m.grace))
	}
	return wake
}
