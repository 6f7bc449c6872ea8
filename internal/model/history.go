package model

import "sync"

// remembered is how many changes a History knows: who is further behind compares all.
const remembered = 4096

// A History tells what differs between two Snapshots of one source, where that is the endpoints of some Services alone.
// Most changes of a cluster are of this kind, and who keeps a big state need not go through all of it for them.
type History struct {
	mu     sync.Mutex
	number uint64   // of the last Snapshot
	other  uint64   // the last one before which something else changed too
	seen   []change // in the order of their numbers
}

// A change is a Service whose endpoints are others in the Snapshot of this number than in the one before.
type change struct {
	number  uint64
	service Key
}

// Note returns s as the next Snapshot of the source: the given Services have other endpoints than before, and nothing else
// changed unless other is set.
func (h *History) Note(s *Snapshot, services []Key, other bool) *Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	if other {
		h.other, h.seen = h.number, nil
	}
	for _, key := range services {
		h.seen = append(h.seen, change{h.number, key})
	}
	if len(h.seen) > 2*remembered {
		h.seen = append([]change(nil), h.seen[len(h.seen)-remembered:]...)
		h.other = max(h.other, h.seen[0].number) // of that one, and of all before, it does not know all
	}
	out := *s
	out.history, out.number = h, h.number
	return &out
}

// EndpointsSince returns the Services whose endpoints may be others in s than in before, each once. It is false if more
// than endpoints may differ, or if that is not known.
func (s *Snapshot) EndpointsSince(before *Snapshot) ([]Key, bool) {
	if before == nil || s.history == nil || s.history != before.history || before.number > s.number {
		return nil, false
	}
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.other > before.number {
		return nil, false
	}
	var out []Key
	had := map[Key]bool{}
	for i := len(h.seen) - 1; i >= 0 && h.seen[i].number > before.number; i-- {
		if c := h.seen[i]; c.number <= s.number && !had[c.service] {
			had[c.service], out = true, append(out, c.service)
		}
	}
	return out, true
}
