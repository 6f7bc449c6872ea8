package live

import (
	"cmp"
	"slices"
	"sync"

	"hythe.dev/hythe/internal/inspect"
)

// keep is how many requests a Log keeps, and of how many ids it remembers that they were asked for.
const keep = 100

// A Log keeps the last marked requests. Those whose id was asked for stay longer than others, so that strangers who
// send marks cannot push them out. The zero value is ready.
type Log struct {
	mu      sync.Mutex
	entries []inspect.LiveAnswer
	asked   []string // the latest last
}

// Add adds a request.
func (l *Log) Add(e inspect.LiveAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) >= keep {
		oldest := max(0, slices.IndexFunc(l.entries, func(e inspect.LiveAnswer) bool { return !slices.Contains(l.asked, e.ID) }))
		l.entries = slices.Delete(l.entries, oldest, oldest+1)
	}
	l.entries = append(l.entries, e)
}

// Get returns the requests with an id, the oldest first. Ask once before the request is sent: then it is kept longer.
func (l *Log) Get(id string) []inspect.LiveAnswer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.asked, id) {
		if len(l.asked) >= keep {
			l.asked = slices.Delete(l.asked, 0, 1)
		}
		l.asked = append(l.asked, id)
	}
	out := []inspect.LiveAnswer{}
	for _, e := range l.entries {
		if e.ID == id {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b inspect.LiveAnswer) int { return cmp.Compare(a.Received.UnixNano(), b.Received.UnixNano()) })
	return out
}
