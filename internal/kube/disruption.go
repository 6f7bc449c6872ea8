package kube

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

// ReasonNodesSilent is that of the Problem that most kubelets could not post for a while.
const ReasonNodesSilent = "NodesSilent"

const (
	// silentTogether is how far apart Nodes may turn Unknown for one cause: the node lifecycle controller looks every five
	// seconds, and a kubelet renews its Lease every ten.
	silentTogether = 20 * time.Second
	// silentRecover is how long a kubelet has to post the readiness of its pods, and the EndpointSlice controller to pass
	// it on. A Node that is silent for longer while another one is not is believed to be dead.
	silentRecover = time.Minute
	// silentRecent is how long before its Node an endpoint may turn: the two come by two watches.
	silentRecent = 10 * time.Second
	// silentLate is how long a Node watch must have been without an answer to count as late, and how long it is waited for.
	silentLate = time.Second
	// silentRecall is how old the cache may be from which a start takes what was ready, if the API server answers.
	silentRecall = 10 * time.Minute
)

// A disruption keeps endpoints ready that turned unready only since no kubelet could post. After the API server was
// away, the node lifecycle controller finds that all heartbeats are old, sets the Nodes' condition Ready to Unknown and that
// of their pods to False, until each kubelet has posted again. Nothing happened to the pods.
//
//	Nodes ──────────> judge: did most turn Unknown together? ──> doubted Nodes ──┐
//	EndpointSlices ─> report: which endpoints turned unready? ─> lapses ─────────┴─> apply: EndpointSlices as used
//
// It has no clock: the caller says what time it is.
type disruption struct {
	nodes  map[string]*heartbeat
	all    bool      // all Nodes are Unknown
	lateTo time.Time // until then Nodes may be older than EndpointSlices

	reported map[model.Key]*endpointSlice
	used     map[model.Key]*endpointSlice    // in place of the reported ones where they differ
	lapses   map[model.Key]map[target]*lapse // by EndpointSlice
}

// A heartbeat is what is known of one Node's condition Ready.
type heartbeat struct {
	status  corev1.ConditionStatus
	since   time.Time // its transition, by the clock of who wrote it: only compared with itself
	turned  time.Time // when it was last seen to turn Unknown or to come back; zero: never
	until   time.Time // how long it is excused, unless all are silent
	doubted bool
}

// A target is an endpoint of an EndpointSlice: another pod, or the same at another address, is another one.
type target struct {
	address   netip.Addr
	node, pod string
}

// A lapse is an endpoint that was ready and then not.
type lapse struct {
	since time.Time
	ended bool // reported ready again: what its probe says after that is believed
}

func newDisruption() *disruption {
	return &disruption{
		nodes:    map[string]*heartbeat{},
		reported: map[model.Key]*endpointSlice{},
		used:     map[model.Key]*endpointSlice{},
		lapses:   map[model.Key]map[target]*lapse{},
	}
}

// recall takes what an earlier process left for the state of before.
func (d *disruption) recall(objects []metav1.Object, now time.Time) {
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Node:
			d.beat(o.Name, o, now)
		case *endpointSlice:
			d.reported[keyOf(o)] = o
		}
	}
}

// apply returns the changes of what is to be used, given those of what the API server says. late says that Nodes may be
// older than EndpointSlices.
func (d *disruption) apply(changes []change, now time.Time, late bool) []change {
	if late {
		d.lateTo = now.Add(silentLate)
	}
	d.expire(now)
	var out []change
	fresh := map[model.Key]bool{}
	for _, c := range changes {
		switch c.kind {
		case "Node":
			node, _ := c.object.(*corev1.Node)
			d.beat(c.key.Name, node, now)
		case "EndpointSlice":
			slice, _ := c.object.(*endpointSlice)
			d.report(c.key, slice, now)
			fresh[c.key] = true
			if d.lapses[c.key] != nil {
				continue // see below
			}
			delete(d.used, c.key)
		}
		out = append(out, c)
	}
	d.judge(now)
	for _, key := range model.SortedKeys(d.lapses) {
		before := d.used[key]
		d.use(key, now)
		if len(d.lapses[key]) == 0 {
			delete(d.lapses, key)
		}
		if after := d.used[key]; fresh[key] || !reflect.DeepEqual(before, after) {
			c := change{kind: "EndpointSlice", key: key, object: d.reported[key]}
			if after != nil {
				c.object = after
			}
			out = append(out, c)
		}
	}
	return out
}

// beat notes the condition Ready of a Node; nil is one that is gone.
func (d *disruption) beat(name string, node *corev1.Node, now time.Time) {
	if node == nil {
		delete(d.nodes, name)
		return
	}
	status, since := readyOf(node)
	b := d.nodes[name]
	if b == nil {
		b = &heartbeat{}
		d.nodes[name] = b
	}
	unknown := func(s corev1.ConditionStatus) bool { return s == corev1.ConditionUnknown }
	differs := status != b.status || !since.Equal(b.since)
	// One that was True and is True since another time was not for a while that no watch told of. False is a kubelet's own word.
	if differs && (unknown(status) || unknown(b.status) || status == corev1.ConditionTrue && b.status == status) {
		b.turned, b.until = now, now.Add(silentRecover)
		d.forget(name)
	}
	b.status, b.since = status, since
}

func readyOf(node *corev1.Node) (corev1.ConditionStatus, time.Time) {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status, c.LastTransitionTime.Time
		}
	}
	return "", time.Time{}
}

// forget lets endpoints of a Node lapse once more.
func (d *disruption) forget(node string) {
	for _, lapses := range d.lapses {
		for t, l := range lapses {
			if t.node == node && l.ended {
				delete(lapses, t)
			}
		}
	}
}

// judge decides which Nodes are silent since the control plane was away: all are, or more than half of those that were not
// silent already turned so together. One of one is; one of two is dead.
func (d *disruption) judge(now time.Time) {
	were := d.all
	d.all = len(d.nodes) > 0
	alive, together := 0, 0
	for _, b := range d.nodes {
		d.all = d.all && b.status == corev1.ConditionUnknown
		turned := !b.turned.IsZero() && now.Sub(b.turned) < silentTogether
		if turned {
			together++
		}
		if turned || b.status != corev1.ConditionUnknown {
			alive++
		}
	}
	for _, b := range d.nodes {
		if were && !d.all { // from now on a kubelet can post
			b.until = now.Add(silentRecover)
		}
		excused := d.all || now.Before(b.until)
		b.doubted = excused && (b.doubted || d.all || 2*together > alive)
	}
}

// report notes which endpoints of an EndpointSlice turned unready. What is gone, or is being deleted, is no lapse.
func (d *disruption) report(key model.Key, slice *endpointSlice, now time.Time) {
	before := d.reported[key]
	if slice == nil {
		delete(d.reported, key)
		delete(d.lapses, key)
		return
	}
	d.reported[key] = slice
	if d.lapses[key] == nil && !slices.ContainsFunc(slice.endpoints, func(e model.Endpoint) bool { return !e.Ready }) {
		return // mostly
	}
	was := map[target]bool{}
	if before != nil {
		for _, e := range before.endpoints {
			was[targetOf(e)] = e.Ready
		}
	}
	lapses := map[target]*lapse{}
	for _, e := range slice.endpoints {
		t := targetOf(e)
		l := d.lapses[key][t]
		switch {
		case t.node == "" || e.Terminating:
		case e.Ready && l != nil:
			lapses[t] = &lapse{since: l.since, ended: true}
		case !e.Ready && l != nil:
			lapses[t] = l
		case !e.Ready && was[t]:
			lapses[t] = &lapse{since: now}
		}
	}
	delete(d.lapses, key)
	if len(lapses) > 0 {
		d.lapses[key] = lapses
	}
}

func targetOf(e model.Endpoint) target { return target{e.AddrPort.Addr(), e.Node, e.Pod} }

// expire believes what was not doubted for a while.
func (d *disruption) expire(now time.Time) {
	for _, lapses := range d.lapses {
		for t, l := range lapses {
			if b := d.nodes[t.node]; (b == nil || !b.doubted) && now.Sub(l.since) >= silentRecent {
				delete(lapses, t)
			}
		}
	}
}

// use makes the EndpointSlice that is used: the endpoints that lapsed on doubted Nodes are ready in it.
func (d *disruption) use(key model.Key, now time.Time) {
	held := map[target]bool{}
	for t, l := range d.lapses[key] {
		b := d.nodes[t.node]
		if !l.ended && (b != nil && b.doubted || now.Before(d.lateTo)) {
			held[t] = true
		}
	}
	delete(d.used, key)
	if len(held) == 0 {
		return
	}
	slice := *d.reported[key]
	slice.endpoints = slices.Clone(slice.endpoints)
	for i, e := range slice.endpoints {
		if held[targetOf(e)] {
			slice.endpoints[i].Ready, slice.endpoints[i].Serving, slice.endpoints[i].Terminating = true, true, false
		}
	}
	d.used[key] = &slice
}

// next is when to look again although nothing changes; the zero time is never.
func (d *disruption) next(now time.Time) (next time.Time) {
	earlier := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, b := range d.nodes {
		if b.doubted && !d.all {
			earlier(b.until)
		}
	}
	if len(d.used) > 0 {
		earlier(d.lateTo)
	}
	return next
}

// problems says that endpoints may be used which are said to be unready.
func (d *disruption) problems(server model.ObjectRef) []model.Problem {
	for _, b := range d.nodes {
		if b.doubted {
			return []model.Problem{model.Problemf(server, ReasonNodesSilent,
				"most Nodes turned Unknown together, as after a time without API server or kube-controller-manager: endpoints on them that are "+
					"said to be unready since stay in use until they are said to be ready, or for %s after the first Nodes are Ready again. If it lasts, see why no kubelet can renew its Lease.",
				silentRecover)}
		}
	}
	return nil
}

// mostUnknown says whether most of the Nodes among some changes are Unknown.
func mostUnknown(changes []change) bool {
	nodes, unknown := 0, 0
	for _, c := range changes {
		if node, ok := c.object.(*corev1.Node); ok {
			nodes++
			if status, _ := readyOf(node); status == corev1.ConditionUnknown {
				unknown++
			}
		}
	}
	return 2*unknown > nodes
}
