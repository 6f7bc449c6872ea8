package model

import (
	"slices"
	"sync"
)

// remembered is how many changes a History knows: who is further behind compares all.
const remembered = 4096

// A History tells what differs between two Snapshots of one source, where that is some Services and their endpoints alone.
// Most changes of a cluster are of this kind, and who keeps a big state need not go through all of it for them.
type History struct {
	mu      sync.Mutex
	number  uint64   // of the last Snapshot
	other   uint64   // the last one before which something else changed too
	objects uint64   // the last one before which a Service changed, and not only its endpoints
	seen    []change // in the order of their numbers
}

// A change is a Service that is another in the Snapshot of this number than in the one before, or has other endpoints there.
type change struct {
	number  uint64
	service Key
}

// Note returns s as the next Snapshot of the source: the given Services have other endpoints than before, and nothing else
// changed unless other is set.
func (h *History) Note(s *Snapshot, services []Key, other bool) *Snapshot {
	return h.NoteServices(s, services, nil, other)
}

// NoteServices is Note where Services themselves may be new, others or gone: objects names these.
func (h *History) NoteServices(s *Snapshot, endpoints, objects []Key, other bool) *Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	if other {
		h.other, h.seen = h.number, nil
	}
	if len(objects) > 0 {
		h.objects = h.number
	}
	for _, key := range slices.Concat(endpoints, objects) {
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
	keys, objects, known := s.since(before)
	if !known || objects {
		return nil, false
	}
	return keys, true
}

// ServicesSince returns the Services that may be others in s than in before, be new or gone, or have other endpoints, each
// once. It is false if more than that may differ, or if it is not known.
func (s *Snapshot) ServicesSince(before *Snapshot) ([]Key, bool) {
	keys, _, known := s.since(before)
	return keys, known
}

// since says which Services differ, and whether some do by more than their endpoints.
func (s *Snapshot) since(before *Snapshot) (keys []Key, objects, known bool) {
	if before == nil || s.history == nil || s.history != before.history || before.number > s.number {
		return nil, false, false
	}
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.other > before.number {
		return nil, false, false
	}
	had := map[Key]bool{}
	for i := len(h.seen) - 1; i >= 0 && h.seen[i].number > before.number; i-- {
		if c := h.seen[i]; c.number <= s.number && !had[c.service] {
			had[c.service], keys = true, append(keys, c.service)
		}
	}
	return keys, h.objects > before.number, true
}
