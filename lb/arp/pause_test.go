package arp

import (
	"net/netip"
	"testing"
	"time"
)

// A process that was stopped says nothing about its addresses before it has heard the other nodes.
func TestPause(t *testing.T) {
	table := testTable()
	now := start
	for range 40 { // two seconds in which it runs
		now = now.Add(50 * time.Millisecond)
		table.look(now)
		table.due(now)
	}
	if send, _ := table.handle(now, request(foreign, host, vip)); len(send) != 1 {
		t.Fatalf("a process that runs answers with %v", send)
	}
	now = now.Add(time.Hour)
	table.look(now)
	said := func() int {
		send, _ := table.handle(now, request(foreign, host, vip))
		due, _, _ := table.due(now)
		defence, events := table.handle(now, request(member, vip, vip))
		if len(events) != 1 {
			t.Errorf("events %v, want the conflict", events)
		}
		return len(send) + len(due) + len(defence)
	}
	if n := said(); n > 0 {
		t.Errorf("%d messages right after a pause", n)
	}
	now = now.Add(quietFor / 2)
	table.look(now)
	if _, _, next := table.due(now); next.After(now.Add(quietFor)) {
		t.Errorf("the announcement that was due comes at %s", next.Sub(now))
	}
	if n := said(); n > 0 {
		t.Errorf("%d messages a moment after a pause", n)
	}
	now = now.Add(quietFor / 2)
	table.look(now)
	if n := said(); n < 4 { // an answer, two announcements and a defence
		t.Errorf("%d messages after the quiet time, want 4 or more", n)
	}
	table.set(now, []netip.Addr{})
	if send, _ := table.handle(now, request(foreign, host, vip)); len(send) > 0 {
		t.Errorf("answered %v for an address of another node", send)
	}
}
