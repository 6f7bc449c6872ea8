package arp

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/arp"
)

// A table is the whole of the responder but for its socket and its clock.
type table struct {
	self       mac
	owned      map[netip.Addr]*announcing
	asked      map[netip.Addr]*asking
	members    map[mac]string
	neighbours map[netip.Addr]time.Time // when each was heard last, zero for never
	// alive is when any of them was heard last.
	alive    time.Time
	counters Counters
	// looked is when the process was seen to run last, quiet until when it says nothing after a pause.
	looked, quiet time.Time
}

// announcing is the schedule of one owned address.
type announcing struct {
	since    time.Time
	step     int
	next     time.Time
	defended time.Time
}

// asking is an open question.
type asking struct {
	question Question
	sent     int
	next     time.Time
}

func newTable() *table {
	return &table{owned: map[netip.Addr]*announcing{}, asked: map[netip.Addr]*asking{}, members: map[mac]string{}, neighbours: map[netip.Addr]time.Time{}}
}

// set makes addrs the owned addresses. New ones are announced at once.
func (t *table) set(now time.Time, addrs []netip.Addr) {
	next := make(map[netip.Addr]*announcing, len(addrs))
	for _, a := range addrs {
		if old := t.owned[a]; old != nil {
			next[a] = old
		} else {
			next[a] = &announcing{since: now, next: now}
			delete(t.asked, a)
		}
	}
	t.owned = next
}

// watch sets the neighbours, and forgets nothing about those that stay.
func (t *table) watch(neighbours map[netip.Addr]bool) {
	next := make(map[netip.Addr]time.Time, len(neighbours))
	for a := range neighbours {
		next[a] = t.neighbours[a]
	}
	t.neighbours = next
}

// again starts the announcements of an owned address anew.
func (t *table) again(now time.Time, a netip.Addr) {
	if o := t.owned[a]; o != nil {
		o.since, o.step, o.next = now, 0, now
	}
}

func (t *table) ask(now time.Time, a netip.Addr, q Question) {
	if t.asked[a] == nil && t.owned[a] == nil {
		t.asked[a] = &asking{question: q, next: now}
	}
}

// handle takes a message that was heard and returns what to send and what was learned.
func (t *table) handle(now time.Time, m message) (send []message, events []Event) {
	if m.senderMAC == t.self || m.src == t.self {
		return nil, nil
	}
	if _, ok := t.neighbours[m.senderIP]; ok {
		t.alive, t.neighbours[m.senderIP] = now, now
	}
	if t.asked[m.senderIP] != nil || m.isProbe() && t.asked[m.targetIP] != nil && t.members[m.senderMAC] == "" {
		a := m.senderIP
		if m.isProbe() {
			a = m.targetIP
		}
		delete(t.asked, a)
		return nil, []Event{t.event(Answered, a, m)}
	}
	if o := t.owned[m.senderIP]; o != nil {
		return t.contested(now, o, m)
	}
	if m.op == arp.OperationRequest && t.owned[m.targetIP] != nil && (m.dst == broadcast || m.dst == t.self) {
		t.counters.Requests++
		if t.silent(now) {
			return nil, nil
		}
		t.counters.Answered++
		return []message{answer(t.self, m)}, nil
	}
	return nil, nil
}

// isProbe reports whether m is an ARP probe of RFC 5227.
func (m message) isProbe() bool {
	return m.op == arp.OperationRequest && m.senderIP.IsUnspecified()
}

func (t *table) event(kind EventKind, a netip.Addr, m message) Event {
	return Event{Kind: kind, Addr: a, MAC: m.senderMAC.String(), Member: t.members[m.senderMAC]}
}

// contested answers somebody who claims an owned address. The address is kept and defended (RFC 5227 section
// 2.4 (c)): a VIP that goes away because a host misbehaves would be that host's power over it.
func (t *table) contested(now time.Time, o *announcing, m message) ([]message, []Event) {
	e := t.event(Conflict, m.senderIP, m)
	gap := defendEvery
	if e.Member != "" {
		gap = outshoutEvery
	} else {
		t.counters.Conflicts++
	}
	if t.silent(now) || !o.defended.IsZero() && now.Sub(o.defended) < gap {
		return nil, []Event{e}
	}
	o.defended = now
	t.counters.Announced += 2
	return announcements(t.self, m.senderIP), []Event{e}
}

// due returns what is to be sent now, what was learned by silence, and when to call again at the latest.
func (t *table) due(now time.Time) (send []message, events []Event, next time.Time) {
	next = now.Add(announceEvery)
	for _, a := range sorted(t.owned) {
		o := t.owned[a]
		if !now.Before(o.next) && t.silent(now) {
			o.next = t.quiet
		}
		if !now.Before(o.next) {
			send = append(send, announcements(t.self, a)...)
			t.counters.Announced += 2
			o.next = o.following(now)
		}
		next = earlier(next, o.next)
	}
	for _, a := range sorted(t.asked) {
		q := t.asked[a]
		if now.Before(q.next) {
			next = earlier(next, q.next)
			continue
		}
		if q.sent == q.question.Count {
			delete(t.asked, a)
			events = append(events, Event{Kind: Free, Addr: a})
			continue
		}
		q.sent++
		t.counters.Asked++
		send = append(send, probe(t.self, a))
		wait := q.question.Wait
		if q.sent < q.question.Count {
			wait = q.question.MinGap + rand.N(max(q.question.MaxGap-q.question.MinGap, 1))
		}
		q.next = now.Add(wait)
		next = earlier(next, q.next)
	}
	return send, events, next
}

// following steps on and returns the time of the announcement after now.
func (o *announcing) following(now time.Time) time.Time {
	for o.step++; o.step < len(announceAfter); o.step++ {
		if at := o.since.Add(announceAfter[o.step]); now.Before(at) {
			return at
		}
	}
	return now.Add(announceEvery)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func sorted[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}
