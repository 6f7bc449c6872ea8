package arp

import "time"

const (
	// pausedAfter is less than the silence after which other nodes take over. A table is looked at more often.
	pausedAfter = 600 * time.Millisecond
	// quietFor is some heartbeats of the other nodes: after them it is known who owns what.
	quietFor = 500 * time.Millisecond
)

// look notes that the process runs. One that was stopped, such as that of a paused virtual machine, does not know
// whether its addresses are another node's by now: for a while it says nothing about them, or all hosts that hear it
// would send to the wrong node.
func (t *table) look(now time.Time) {
	if !t.looked.IsZero() && now.Sub(t.looked) > pausedAfter {
		t.quiet = now.Add(quietFor)
	}
	t.looked = now
}

// silent says whether nothing is to be said about owned addresses.
func (t *table) silent(now time.Time) bool { return now.Before(t.quiet) }
