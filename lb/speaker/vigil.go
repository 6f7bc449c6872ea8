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
	since map[string]time.Time // when the wait for a node began
}

// step returns the nodes that need not be waited for any more, sorted. heard says when each was heard last by ARP. Only
// a node that answered since the wait began can be missed: one behind a router never does. While this node cannot be
// sure of its own ears, the wait begins anew.
func (v *vigil) step(now time.Time, alive []members.Member, heard func(string) time.Time, sure bool) (gone []string) {
	next := map[string]time.Time{}
	for _, m := range alive {
		if !m.Held {
			continue
		}
		since, ok := v.since[m.Name]
		if !ok || !sure {
			since = now
		}
		next[m.Name] = since
		if at := heard(m.Name); at.After(since) && now.Sub(at) >= goneAfter {
			gone = append(gone, m.Name)
		}
	}
	v.since = next
	slices.Sort(gone)
	return gone
}
