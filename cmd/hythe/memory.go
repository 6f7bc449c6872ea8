package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Most of what an agent holds stays for long, and every node has one: its heap may grow by leastGrowth percent between two
// collections, and no more. But a small heap that grows by so little is collected all the time, and what happens meanwhile waits for it:
// so it may grow by freeGrowth bytes, but never to more than twice: a heap that is small now may be big before this is seen.
const (
	leastGrowth = 30
	mostGrowth  = 100
	freeGrowth  = 64 << 20
)

// growth is by how many percent a heap of which live bytes are in use may grow.
func growth(live uint64) int {
	return int(min(max(freeGrowth*100/max(live, 1), leastGrowth), mostGrowth)) //nolint:gosec // at most mostGrowth
}

// collectBySize keeps the target of the garbage collector at growth.
func collectBySize(ctx context.Context) error {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	now := leastGrowth
	debug.SetGCPercent(now)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Second):
		}
		metrics.Read(sample)
		// Each change stops the world for a moment.
		if want := growth(sample[0].Value.Uint64()); want < now-now/8 || want > now+now/8 {
			now = want
			debug.SetGCPercent(now)
		}
	}
}
