package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// replace deletes the table that is there, and writes it anew, in one transaction. The kernel swaps rules and elements at the begin of a
// commit, but a set of ranges that is new is empty until its end (nft_set_commit_update), which takes some 10 ms for each 1,000 Services:
// no NodePort would be served, and no pod masqueraded. So another table with the same content is there meanwhile: its ranges are written
// before its chains. What the kernel refuses is found when that one is written.
// What sets remember, of clients that stay with an endpoint and of connections to reset, goes over to the new table. It is not worth an error:
// where the kernel does not take it, it is left behind.
func (t *Table) replace(ctx context.Context, changes []change, isolate bool) error {
	remembered := t.remembered()
	err := t.replaceWith(ctx, remembered, slices.Clone(changes), isolate)
	if err == nil || len(remembered) == 0 || ctx.Err() != nil {
		return err
	}
	t.log.Warn("trying again to replace table inet hythe, without what it remembers of clients", "error", err)
	clear(t.refused)
	return t.replaceWith(ctx, nil, changes, isolate)
}

func (t *Table) replaceWith(ctx context.Context, remembered []netlink.Message, changes []change, isolate bool) error {
	isRange := func(c change) bool { return t.sets[c.Set].Interval }
	ranges := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return !isRange(c) })
	others := slices.DeleteFunc(slices.Clone(changes), isRange)
	sets, chains := ruleset.Interim(t.flags() &^ nfnetlink.TablePersist)
	t.interim, t.contents, t.picks = true, make(nfnetlink.Contents, len(changes)), newPicks(nil, nil, nil)
	err := t.apply(ctx, append(sets, remembered...), ranges, max(1, len(ranges)), isolate)
	if err == nil {
		err = t.apply(ctx, chains, others, max(1, len(others)), isolate)
	}
	t.interim, t.contents, t.picks = false, make(nfnetlink.Contents, len(changes)), newPicks(nil, nil, nil)
	if err == nil {
		changes = slices.DeleteFunc(changes, func(c change) bool { _, is := t.refused[c.Element]; return is })
		table := append([]netlink.Message{nfnetlink.DeleteTable(nfnetlink.TableName)}, ruleset.Skeleton(t.flags())...)
		err = t.apply(ctx, append(table, remembered...), changes, max(1, len(changes)), false)
	}
	return errors.Join(err, t.endInterim())
}

const (
	// maxRemembered is how many elements of a set go over to a new table: the transaction is not to hold the kernel's lock for long.
	maxRemembered = 1 << 16
	// rememberFor bounds how long they are read. The kernel needs a second for 65,536, and more than twice as long for twice as many: after a
	// flood, what is known of some is not worth a wait for all.
	rememberFor = 3 * time.Second
)

// remembered are messages that write what sets remember of the table that is there.
func (t *Table) remembered() []netlink.Message {
	c, err := nfnetlink.Dial(t.netns) // one that is closed where it is not read to its end
	if err != nil {
		t.log.Warn("what table inet hythe remembers of clients is lost", "error", err)
		return nil
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(rememberFor))
	var out []netlink.Message
	for _, s := range ruleset.Sets() {
		if !s.Dynamic {
			continue
		}
		elements, err := c.TimedElements(s.Set, maxRemembered)
		if err != nil {
			t.log.Warn("what table inet hythe remembers of clients is lost", "set", s.Name, "error", err)
			continue
		}
		out = append(out, nfnetlink.NewTimedElements(s.Set, elements)...)
	}
	return out
}

// endInterim deletes the table of replace, if it is there.
func (t *Table) endInterim() error {
	there, err := t.conn.Has(unix.NFPROTO_INET, nfnetlink.InterimName, "")
	if err == nil && there {
		err = t.conn.Batch([]netlink.Message{nfnetlink.DeleteTable(nfnetlink.InterimName)})
		t.metrics.batches.Inc()
	}
	if err != nil {
		return fmt.Errorf("delete table inet %s: %w", nfnetlink.InterimName, err)
	}
	return nil
}
