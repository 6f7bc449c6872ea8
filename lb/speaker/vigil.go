package speaker

import (
	"slices"
	"time"

	"hythe.dev/hythe/lb/members"
)

const (
	// goneAfter is the silence after which a node that restarts its agent counts as gone: its kernel answers ARP
	// also while no agent runs.
	goneAfter = time.Second
)

// A vigil watches over nodes that asked to be waited for. A machine that is switched off says the same as one whose
// agent restarts, and only then falls silent altogether. It has no clock and no socket.
type vigil struct {
	since  map[string]time.Time // when the wait for a node began
	unsure time.Time            // when this node was last unsure of its own ears
}

// step returns the nodes that need not be waited for any more, sorted. heard says when each was heard last by ARP. Only
// a node that answered since the wait began can be missed: one behind a router never does. While this node cannot be
// sure of its own ears, silence says nothing: it counts from then on. What was heard before stays heard, since a machine
// that is off already never answers again.
func (v *vigil) step(now time.Time, alive []members.Member, heard func(string) time.Time, sure bool) (gone []string) {
	if !sure {
		v.unsure = now
	}
	next := map[string]time.Time{}
	for _, m := range alive {
		if !m.Held {
			continue
		}
		since, ok := v.since[m.Name]
		if !ok {
			since = now
		}
		next[m.Name] = since
		at := heard(m.Name)
		if answered(since, at) && now.Sub(at) >= goneAfter && now.Sub(v.unsure) >= goneAfter {
			gone = append(gone, m.Name)
		}
	}
	v.since = next
	slices.Sort(gone)
	return gone
}

// answered says whether a node that was heard last at a time has answered since the wait for it began.
func answered(since, heard time.Time) bool { return heard.After(since) }
