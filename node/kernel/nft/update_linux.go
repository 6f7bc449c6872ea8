package nft

import (
	"context"
	"time"

	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// Update makes the table hold what the last Set asked for with a change to it. The work is in proportion to the change.
// It is false, and nothing is done, where the table does not hold what was asked for: then only Set helps.
func (t *Table) Update(ctx context.Context, c proxy.Change) (done bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.written == nil || t.written != t.wanted {
		return false, nil
	}
	if !t.private { // who called Set has the same maps
		own := t.wanted.Own()
		t.wanted, t.written, t.private = &own, &own, true
	}
	c.Apply(*t.wanted)
	start := time.Now()
	changes := difference(ruleset.Encode(c.Gone, t.contents), t.contents, ruleset.Encode(c.Come, t.contents))
	t.failures, t.refused = maxFailures, nil
	if err := t.apply(ctx, nil, changes, len(changes), false); err != nil {
		t.written = nil
		return true, t.sync(ctx)
	}
	t.metrics.seconds.Observe(time.Since(start).Seconds())
	return true, nil
}
