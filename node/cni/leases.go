package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Uptime is a moment, as the time since the machine booted: no change of the wall clock moves it.
type Uptime time.Duration

const (
	// rest is how long an address stays unused after its pod is gone: others may still send to it.
	rest = 30 * time.Second
	// forget is when an address that rested is no longer known to have been used.
	forget = time.Hour
)

// ErrNoAddress says that no address of a pod range is free.
var ErrNoAddress = errors.New("no free address")

// ErrResting says that the only free addresses were in use a moment ago. Later there will be one.
var ErrResting = errors.New("all free addresses were in use less than 30 s ago")

// Leases are the addresses that are given out on one node, in one boot of the machine.
type Leases struct {
	BootID string  `json:"bootID"`
	Leases []Lease `json:"leases"`
	// Freed are addresses that were in use, by when that ended.
	Freed map[netip.Addr]Uptime `json:"freed,omitempty"`
	// Last are the addresses given last, at most one of each family.
	Last []netip.Addr `json:"last,omitempty"`
}

// parseLeases reads what was saved, and refuses what could give one address to two pods.
func parseLeases(data []byte) (*Leases, error) {
	l := &Leases{}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, fmt.Errorf("parse leases: %w", err)
	}
	if l.BootID == "" {
		return nil, errors.New("parse leases: bootID is missing")
	}
	requests, addresses := map[Request]bool{}, map[netip.Addr]bool{}
	for _, lease := range l.Leases {
		if requests[lease.Request] {
			return nil, fmt.Errorf("parse leases: two of container %s, interface %s", lease.ContainerID, lease.IfName)
		}
		requests[lease.Request] = true
		for _, a := range lease.Addresses {
			if !a.IsValid() || addresses[a] {
				return nil, fmt.Errorf("parse leases: address %s is not valid, or in two leases", a)
			}
			addresses[a] = true
		}
	}
	return l, nil
}

// afterBoot are the leases when the machine has booted again: none, since no interface survived. What was in use, or at
// rest, begins to rest at the boot: others may still send to it, and would meet another pod.
func (l *Leases) afterBoot(id string) *Leases {
	next := &Leases{BootID: id, Freed: map[netip.Addr]Uptime{}, Last: l.Last}
	for _, lease := range l.Leases {
		for _, a := range lease.Addresses {
			next.Freed[a] = 0
		}
	}
	for a := range l.Freed {
		next.Freed[a] = 0
	}
	return next
}

// Find returns the lease of a request.
func (l *Leases) Find(r Request) (Lease, bool) {
	i := slices.IndexFunc(l.Leases, func(e Lease) bool { return e.Request == r })
	if i < 0 {
		return Lease{}, false
	}
	return l.Leases[i], true
}

// Allocate gives the request one free address of each range. It fails with ErrNoAddress or ErrResting, and then
// changes nothing.
func (l *Leases) Allocate(r Request, ranges []netip.Prefix, now Uptime) (Lease, error) {
	lease := Lease{Request: r, Since: now}
	for _, p := range ranges {
		a, err := l.pick(p.Masked(), now)
		if err != nil {
			return Lease{}, fmt.Errorf("allocate an address of %s: %w", p, err)
		}
		lease.Addresses = append(lease.Addresses, a)
	}
	for _, a := range lease.Addresses {
		delete(l.Freed, a)
	}
	l.Leases = append(l.Leases, lease)
	l.Last = slices.Clone(lease.Addresses)
	return lease, nil
}

// pick returns the next address after the last one that was not in use lately, else the one that rested longest.
func (l *Leases) pick(p netip.Prefix, now Uptime) (netip.Addr, error) {
	used := map[netip.Addr]bool{}
	for _, lease := range l.Leases {
		for _, a := range lease.Addresses {
			used[a] = true
		}
	}
	first, a := p.Addr().Next(), l.after(p)
	// Among one address more than are taken there is a free one, unless the range ends before.
	for range len(used) + len(l.Freed) + 2 {
		if !assignable(p, a) {
			a = first
		}
		if _, freed := l.Freed[a]; !freed && !used[a] && assignable(p, a) {
			return a, nil
		}
		a = a.Next()
	}
	return l.rested(p, now)
}

// after is where to look first.
func (l *Leases) after(p netip.Prefix) netip.Addr {
	for _, a := range l.Last {
		if p.Contains(a) {
			return a.Next()
		}
	}
	return p.Addr().Next()
}

// assignable leaves out the network address, which the overlay has, and IPv4's broadcast address.
func assignable(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) || a == p.Addr() {
		return false
	}
	return a.Is6() || p.Contains(a.Next())
}

func (l *Leases) rested(p netip.Prefix, now Uptime) (netip.Addr, error) {
	var best netip.Addr
	for a, since := range l.Freed {
		if !assignable(p, a) {
			continue
		}
		if !best.IsValid() || since < l.Freed[best] || since == l.Freed[best] && a.Less(best) {
			best = a
		}
	}
	if !best.IsValid() {
		return netip.Addr{}, ErrNoAddress
	}
	if now-l.Freed[best] < Uptime(rest) {
		return netip.Addr{}, ErrResting
	}
	return best, nil
}

// Outside lists the leases with an address that is in none of the ranges: the node's range has changed since, and other
// nodes reach these pods no more.
func (l *Leases) Outside(ranges []netip.Prefix) []Lease {
	var out []Lease
	for _, lease := range l.Leases {
		if slices.ContainsFunc(lease.Addresses, func(a netip.Addr) bool {
			return !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
		}) {
			out = append(out, lease)
		}
	}
	return out
}

// Free ends the lease of a request; its addresses begin to rest. It reports whether there was one.
func (l *Leases) Free(r Request, now Uptime) bool {
	lease, ok := l.Find(r)
	if !ok {
		return false
	}
	l.Leases = slices.DeleteFunc(l.Leases, func(e Lease) bool { return e.Request == r })
	if l.Freed == nil {
		l.Freed = map[netip.Addr]Uptime{}
	}
	for _, a := range lease.Addresses {
		l.Freed[a] = now
	}
	for a, since := range l.Freed {
		if now-since > Uptime(forget) {
			delete(l.Freed, a)
		}
	}
	return true
}
