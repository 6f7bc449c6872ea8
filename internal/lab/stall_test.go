package lab_test

import (
	"sync"
	"testing"
	"time"
)

// stallLimit is how long the machine may stand still in a round that is judged. Half a second more and agents that get
// no CPU lose their VIPs, and rightly so.
const stallLimit = 250 * time.Millisecond

// A stallMeter sees how long the machine gives this process no CPU at all.
type stallMeter struct {
	mu     sync.Mutex
	stalls []stall
}

type stall struct {
	ended time.Time
	took  time.Duration
}

// newStallMeter measures until the end of the test.
func newStallMeter(t *testing.T) *stallMeter {
	m := &stallMeter{}
	const nap = 20 * time.Millisecond
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for last := time.Now(); ; {
			select {
			case <-done:
				return
			case <-time.After(nap):
			}
			now := time.Now()
			if took := now.Sub(last) - nap; took > stallLimit/2 {
				m.mu.Lock()
				m.stalls = append(m.stalls, stall{now, took})
				m.mu.Unlock()
			}
			last = now
		}
	})
	t.Cleanup(func() {
		close(done)
		wg.Wait()
	})
	return m
}

// longest is the longest stall that ended after a moment.
func (m *stallMeter) longest(since time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out time.Duration
	for _, s := range m.stalls {
		if s.ended.After(since) {
			out = max(out, s.took)
		}
	}
	return out
}
