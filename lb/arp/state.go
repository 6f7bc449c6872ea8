package arp

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// An Event is something that was learned from the LAN.
type Event struct {
	Kind EventKind
	Addr netip.Addr
	// MAC is the sender of what was heard; Member is the name of the node whose MAC it is, or empty for a host
	// that is none.
	MAC    string
	Member string
}

// An EventKind says what an Event is about.
type EventKind uint8

const (
	// Free: a question has ended without an answer.
	Free EventKind = iota
	// Answered: somebody uses the address that was asked for. The question has ended.
	Answered
	// Conflict: somebody else claims an address that this node owns.
	Conflict
	// LinkChanged: the interface came, went, or has another MAC.
	LinkChanged
)

var eventNames = [...]string{Free: "free", Answered: "answered", Conflict: "conflict", LinkChanged: "link"}

func (e Event) String() string {
	return fmt.Sprintf("%s %s %s %s", eventNames[e.Kind], e.Addr, e.MAC, e.Member)
}

// A Question says how to ask whether an address is in use: Count ARP probes (RFC 5227 section 2.1.1), MinGap to
// MaxGap apart, and Wait after the last one.
type Question struct {
	Count          int
	MinGap, MaxGap time.Duration
	Wait           time.Duration
}

// Quick is the question at a takeover: a member that still owns the address answers within the time of a LAN.
func Quick() Question { return Question{Count: 1, Wait: 100 * time.Millisecond} }

// Full is the question for an address that no member ever owned, with the constants of RFC 5227 section 1.1. It
// takes four to six seconds. The random delay before the first probe is left out: one elected node probes.
func Full() Question {
	return Question{Count: 3, MinGap: time.Second, MaxGap: 2 * time.Second, Wait: 2 * time.Second}
}

// announceAfter are the times of the announcements after a takeover. Several, since a frame may be lost, some
// receivers ignore a second change within a second (the kernel's locktime), and a loser's late announcement must
// not be the last word.
var announceAfter = [...]time.Duration{
	0, 100 * time.Millisecond, 500 * time.Millisecond, 1100 * time.Millisecond, 2200 * time.Millisecond, 5 * time.Second,
}

const (
	// announceEvery is the time between later announcements: switch tables forget within minutes.
	announceEvery = 30 * time.Second
	// defendEvery is the least time between two announcements against a host that uses an owned address: DEFEND_INTERVAL of
	// RFC 5227 section 2.4 (c).
	defendEvery = 10 * time.Second
	// outshoutEvery is the same against a member, which will stop within a heartbeat.
	outshoutEvery = 100 * time.Millisecond
)

// A Link is the state of the interface.
type Link struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	// Up is true when it is up and has a carrier.
	Up bool
	// Read is false until Run has looked for the interface.
	Read bool
}

// Counters count frames since the start.
type Counters struct {
	Requests, Answered, Announced, Asked, Conflicts, Malformed uint64
}
