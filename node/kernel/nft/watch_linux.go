package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

const (
	// repairDelay collects the notifications of one foreign transaction.
	repairDelay = 20 * time.Millisecond
	// retryDelay is how long after a failed repair the next one is tried.
	retryDelay = time.Second
	// refusedDelay is how often it is tried again what the kernel refused.
	refusedDelay = 10 * time.Second
)

// Run repairs the table whenever somebody else changed it, or may have, until ctx is done. What Set asked for last is
// what it repairs to. Now and then it tries again what the kernel refused. It returns an error only if it cannot listen
// any more.
func (t *Table) Run(ctx context.Context) error {
	past := time.Unix(1, 0)
	stop := context.AfterFunc(ctx, func() { _ = t.listener.SetReadDeadline(past) })
	defer stop()
	waiting := false
	t.wakeIn(ctx, refusedDelay)
	for ctx.Err() == nil {
		messages, err := t.listener.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if waiting {
				waiting = !t.repair(ctx)
			} else {
				waiting = !t.again(ctx)
			}
			if waiting {
				t.wakeIn(ctx, retryDelay)
			} else {
				t.wakeIn(ctx, refusedDelay)
			}
		case errors.Is(err, unix.ENOBUFS):
			t.log.Warn("notifications of nftables were lost")
			waiting = t.wakeOnce(ctx, waiting)
		case err != nil:
			return fmt.Errorf("listen to nftables: %w", err)
		case nfnetlink.Concerns(messages):
			waiting = t.wakeOnce(ctx, waiting)
		}
	}
	return nil
}

// wakeOnce makes the next Receive end after repairDelay, unless one is to end already.
func (t *Table) wakeOnce(ctx context.Context, waiting bool) bool {
	if !waiting {
		t.wakeIn(ctx, repairDelay)
	}
	return true
}

// wakeIn sets the deadline of the listener. A ctx that is done has set it to the past; that must win.
func (t *Table) wakeIn(ctx context.Context, d time.Duration) {
	_ = t.listener.SetReadDeadline(time.Now().Add(d))
	if ctx.Err() != nil {
		_ = t.listener.SetReadDeadline(time.Unix(1, 0))
	}
}

// again tries what the kernel refused, and that alone. It is false where the table may not hold what it should: then repair is to read it.
func (t *Table) again(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.written == nil || len(t.refused) == 0 {
		return true
	}
	before := len(t.refused)
	if err := t.retry(ctx); err != nil {
		t.written = nil
		t.log.Error("table inet hythe may not hold what it should", "error", err)
		return false
	}
	if t.tell(); len(t.refused) != before {
		t.log.Info("the kernel takes elements that it had refused", "taken", before-len(t.refused), "refused", len(t.refused))
	}
	return true
}

// repair reads the table and writes what is wrong with it. It says whether all is well again, but for what the kernel refuses.
func (t *Table) repair(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wanted == nil {
		return true
	}
	t.metrics.repairs.Inc()
	t.log.Warn("somebody else changed table inet hythe: repairing it")
	t.written = nil
	if err := t.sync(ctx); err != nil {
		t.log.Error("repair of table inet hythe failed", "error", err)
	}
	return t.written != nil
}
