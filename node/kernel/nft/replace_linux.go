package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// replace deletes the table that is there, and writes it anew, in one transaction. The kernel swaps rules and elements at the begin of a
// commit, but a set of ranges that is new is empty until its end (nft_set_commit_update), which takes some 10 ms for each 1,000 Services:
// no NodePort would be served, and no pod masqueraded. So another table with the same content is there meanwhile: its ranges are written
// before its chains. What the kernel refuses is found when that one is written.
func (t *Table) replace(ctx context.Context, changes []change, isolate bool) error {
	isRange := func(c change) bool { return t.sets[c.Set].Interval }
	ranges := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return !isRange(c) })
	others := slices.DeleteFunc(slices.Clone(changes), isRange)
	sets, chains := ruleset.Interim(t.flags() &^ nfnetlink.TablePersist)
	t.interim = true
	err := t.apply(ctx, sets, ranges, max(1, len(ranges)), isolate)
	if err == nil {
		err = t.apply(ctx, chains, others, max(1, len(others)), isolate)
	}
	t.interim, t.contents, t.picks = false, make(nfnetlink.Contents, len(changes)), newPicks(nil, nil, nil)
	if err == nil {
		changes = slices.DeleteFunc(changes, func(c change) bool { _, is := t.refused[c.Element]; return is })
		err = t.apply(ctx, append([]netlink.Message{nfnetlink.DeleteTable(nfnetlink.TableName)}, ruleset.Skeleton(t.flags())...), changes, max(1, len(changes)), false)
	}
	return errors.Join(err, t.endInterim())
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
