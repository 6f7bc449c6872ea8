package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// endedFor is how long a connection is reset that ended: longer than the two hours after which a silent one is asked
// whether it is there (SO_KEEPALIVE of Linux).
const endedFor = 3 * time.Hour

// End has TCP connections reset when they send: each direction for itself. Their conntrack entries have to be deleted after
// that. The kernel remembers a bounded number; further ones are not reset, which is an error.
func (t *Table) End(directions []conntrack.Tuple) error {
	bySet := map[string][]nfnetlink.TimedElement{}
	for _, d := range directions {
		e := ruleset.Ended(d.Src, d.Dst)
		bySet[e.Set] = append(bySet[e.Set], nfnetlink.TimedElement{Key: e.Key, Timeout: endedFor})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, set := range slices.Sorted(maps.Keys(bySet)) {
		for _, m := range nfnetlink.NewTimedElements(t.sets[set].Set, bySet[set]) {
			// Each for itself: a transaction that overfills the set would put in nothing.
			if err := t.conn.Batch([]netlink.Message{m}); errors.Is(err, unix.ENFILE) {
				errs = append(errs, fmt.Errorf("reset connections: %d are remembered already: %w", ruleset.MaxEnded, err))
				break
			} else if err != nil {
				errs = append(errs, fmt.Errorf("reset connections: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
