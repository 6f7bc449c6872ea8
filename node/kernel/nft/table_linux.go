package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// maxChanges is how many elements one batch changes while the table is filled: the kernel's lock is held for some
// 20 ms, and what else the agent has to say to the kernel comes in between.
const maxChanges = 8000

// A Table is the table "inet hythe" of one network namespace.
type Table struct {
	log     *slog.Logger
	sets    map[string]ruleset.Set
	metrics metrics
	netns   int
	plain   bool
	// transact is conn.Batch. A test makes it refuse what no kernel refuses when it is told to.
	transact func([]netlink.Message) error

	mu       sync.Mutex // guards what follows
	conn     nfnetlink.Conn
	listener nfnetlink.Conn
	wanted   *proxy.State       // what the last Set asked for
	written  *proxy.State       // what is in the kernel, nil if that has to be read
	private  bool               // nobody else has the maps of wanted that Update changes
	contents nfnetlink.Contents // the elements that are in the kernel
	picks    picks
	refused  map[nfnetlink.Element]refusal // what written has and the kernel does not
	news     bool                          // of refused, which Problems does not have yet
	interim  bool                          // what is sent is for the table that serves while this one is replaced

	told told // guards itself: Problems does not wait for a Set
}

// An Option changes how a Table is made.
type Option func(*Table)

// InNetNS works in the network namespace of the file descriptor fd, in place of that of the calling thread.
func InNetNS(fd int) Option { return func(t *Table) { t.netns = fd } }

// WithoutOwner leaves the table without an owner, as on kernels before 6.9: others can change it, and Run repairs.
func WithoutOwner() Option { return func(t *Table) { t.plain = true } }

// New opens the sockets of a Table and finds out what the kernel can. It writes no rule yet, and takes away those that an agent left who
// was killed in the midst of a replacement: they come before the table's own and grow old. Without InNetNS it works
// in the network namespace that the calling thread is in. reg takes the metrics; nil for none.
func New(log *slog.Logger, reg prometheus.Registerer, options ...Option) (*Table, error) {
	t := &Table{log: log, sets: map[string]ruleset.Set{}, refused: map[nfnetlink.Element]refusal{}}
	for _, s := range ruleset.Sets() {
		t.sets[s.Name] = s
	}
	for _, o := range options {
		o(t)
	}
	var err error
	if t.metrics, err = newMetrics(reg); err != nil {
		return nil, fmt.Errorf("register metrics of the datapath: %w", err)
	}
	if reg != nil {
		if err := reg.Register(readback.NewDropCounters(t.netns)); err != nil {
			return nil, fmt.Errorf("register metrics of the datapath: %w", err)
		}
	}
	if t.conn, err = nfnetlink.Dial(t.netns); err != nil {
		return nil, err
	}
	t.transact = t.conn.Batch
	if t.listener, err = nfnetlink.Listen(t.netns, t.conn.PID()); err != nil {
		_ = t.conn.Close()
		return nil, err
	}
	if !t.plain && !t.conn.CanOwn() {
		t.log.Info("the kernel has no table owner that the table survives: others can change table inet hythe")
		t.plain = true
	}
	if err := t.endInterim(); err != nil { // Set tries it again
		t.log.Warn("the rules of an agent that was killed cannot be taken away yet", "error", err)
	}
	return t, nil
}

// Close closes the sockets. The table stays in the kernel as it is.
func (t *Table) Close() error {
	return errors.Join(t.listener.Close(), t.conn.Close())
}

// Set makes the table hold s. It writes what differs from what is there, in one batch if the table is in use; a table
// that is filled for the first time is written in several. After an error it reads what is there, and isolates
// elements that the kernel refuses; the error is a *RefusedError then, and all others are in place. What is refused is tried
// again by each Set, and by Run. ctx ends a long Set between batches.
func (t *Table) Set(ctx context.Context, s proxy.State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted, t.private = &s, false
	return t.sync(ctx)
}

// sync makes the kernel hold what is wanted.
func (t *Table) sync(ctx context.Context) error {
	start := time.Now()
	defer func() { t.metrics.seconds.Observe(time.Since(start).Seconds()) }()
	err := t.write(ctx, false)
	if err != nil && ctx.Err() == nil {
		t.log.Warn("the kernel refused a change of table inet hythe: reading it and trying again", "error", err)
		t.metrics.failures.Inc()
		err = t.write(ctx, true)
	}
	t.tell()
	if t.written = t.wanted; err != nil {
		t.written = nil
	}
	if err == nil { // else what was refused is not what is wrong
		err = t.refusals()
	}
	if err != nil {
		return fmt.Errorf("set table inet %s: %w", nfnetlink.TableName, err)
	}
	return nil
}

// plan returns the changes from gone to come. What of them was refused counts no more: it is tried as part of them, or is not wanted.
func (t *Table) plan(gone, come proxy.State) []change {
	keys, want := ruleset.Encode(gone, t.contents), ruleset.Encode(come, t.contents)
	for e := range t.refused {
		_, goes := keys[e]
		_, comes := want[e]
		if goes || comes {
			delete(t.refused, e)
			t.news = true
		}
	}
	return difference(keys, t.contents, want)
}

// retry tries again what was refused, and that alone.
func (t *Table) retry(ctx context.Context) error {
	var changes []change
	for e, r := range t.refused {
		have, there := t.contents[e]
		changes = append(changes, change{Element: e, old: have, new: r.new, remove: there, insert: r.insert})
	}
	if len(changes) == 0 {
		return nil
	}
	before := maps.Clone(t.refused)
	clear(t.refused)
	t.news = true
	err := t.apply(ctx, nil, changes, len(changes), true)
	if err != nil {
		t.refused = before
	}
	return err
}

// write applies the difference between what is there and what is wanted. If isolate is set, it reads what is there, and
// writes all that the kernel takes.
func (t *Table) write(ctx context.Context, isolate bool) error {
	if t.written != nil && !isolate {
		gone, come := only(*t.written, *t.wanted), only(*t.wanted, *t.written)
		changes := t.plan(gone, come)
		if err := t.apply(ctx, nil, changes, len(changes), false); err != nil {
			return err
		}
		return t.retry(ctx)
	}
	if err := t.endInterim(); err != nil { // of an agent that was killed
		return err
	}
	there, err := read(t.conn)
	if err != nil {
		return err
	}
	t.news = t.news || len(t.refused) > 0
	clear(t.refused)
	if there.whole {
		t.own(there.Flags)
		t.contents, t.picks = there.contents, newPicks(there.picks, there.contents, t.sets)
		return t.apply(ctx, nil, difference(t.contents, t.contents, ruleset.Encode(*t.wanted, t.contents)), maxChanges, isolate)
	}
	if there.Owner != 0 && there.Owner != t.conn.PID() {
		return fmt.Errorf("table inet %s has another owner, of netlink port %d: is a second agent running? %w", nfnetlink.TableName, there.Owner, unix.EPERM)
	}
	changes := difference(nil, nil, ruleset.Encode(*t.wanted, nil))
	t.contents, t.picks = make(nfnetlink.Contents, len(changes)), newPicks(nil, nil, nil)
	t.metrics.rebuilds.Inc()
	if there.Exists {
		t.log.Info("writing table inet hythe anew: it is another version's, or was changed by others")
		return t.replace(ctx, changes, isolate)
	}
	return t.apply(ctx, ruleset.Skeleton(t.flags()), changes, maxChanges, isolate)
}

// flags are those that a new table gets: an owner, if it survives its owner's end.
func (t *Table) flags() uint32 {
	if t.plain {
		return 0
	}
	return nfnetlink.TableOwner | nfnetlink.TablePersist
}

// own takes over a table whose owner is gone.
func (t *Table) own(flags uint32) {
	if t.plain || flags&nfnetlink.TablePersist == 0 {
		return
	}
	if err := t.conn.Batch([]netlink.Message{nfnetlink.NewTable(nfnetlink.TableName, ruleset.Comment(ruleset.Version()), nfnetlink.TableOwner|nfnetlink.TablePersist)}); err != nil {
		t.log.Warn("table inet hythe has another owner: is a second agent running?", "error", err)
	}
}

// apply writes prefix and changes in batches of at most chunk changes. If isolate is set, it writes all that the kernel takes.
func (t *Table) apply(ctx context.Context, prefix []netlink.Message, changes []change, chunk int, isolate bool) error {
	write := t.commit
	if isolate {
		write = t.isolate
	}
	order(changes, t.sets)
	var errs []error
	for len(prefix) > 0 || len(changes) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		n := min(len(changes), max(1, chunk))
		if err := write(prefix, changes[:n]); err != nil {
			errs = append(errs, err)
			if !isolate || len(prefix) > 0 {
				break
			}
		}
		prefix, changes = nil, changes[n:]
	}
	if len(errs) == 0 {
		t.sweep()
	}
	return errors.Join(errs...)
}

// WriteText writes what the table is to hold, and whether it does, for people.
func (t *Table) WriteText(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(w, "table inet %s, %s, %d elements\n", nfnetlink.TableName, ruleset.Comment(ruleset.Version()), len(t.contents))
	switch {
	case t.wanted == nil:
		fmt.Fprintln(w, "nothing was asked for yet")
		return
	case t.written == nil:
		fmt.Fprintln(w, "NOT in the kernel as below: the last change failed")
	case len(t.refused) > 0:
		fmt.Fprintf(w, "%d elements of what is below are NOT in the kernel, which refused them\n", len(t.refused))
	}
	t.wanted.WriteText(w)
}
