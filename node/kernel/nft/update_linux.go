package nft

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/proxy"
)

// Update makes the table hold what the last Set asked for with a change to it. The work is in proportion to the change.
// It is false, and nothing is done, where it is not known what the table holds: then only Set helps. What the kernel refuses of the
// change is no error, but a Problem until it takes it: all else is in place, and who changes other Services need not wait for it.
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
	if err := t.update(ctx, t.plan(c.Gone, c.Come)); err != nil {
		t.written = nil
		return true, t.sync(ctx)
	}
	t.tell()
	t.metrics.seconds.Observe(time.Since(start).Seconds())
	return true, nil
}

// update writes changes. An error means that the kernel does not hold what is thought, or did not take a change that is right in itself.
func (t *Table) update(ctx context.Context, changes []change) error {
	err := t.apply(ctx, nil, changes, len(changes), false)
	if !errors.Is(err, unix.EINVAL) || ctx.Err() != nil {
		return err
	}
	t.log.Warn("the kernel refused a change of table inet hythe: trying what is right of it", "error", err)
	t.metrics.failures.Inc()
	if err := t.apply(ctx, nil, changes, len(changes), true); err != nil {
		return err
	}
	for _, c := range changes {
		if r, is := t.refused[c.Element]; is && !errors.Is(r.err, unix.EINVAL) {
			return r // the kernel may hold something else
		}
	}
	return nil
}
