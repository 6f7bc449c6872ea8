package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

// maxFailures bounds how many elements of one Set are searched for by halving.
const maxFailures = 16

// A Table is the table "inet hythe" of one network namespace.
type Table struct {
	log     *slog.Logger
	sets    map[string]ruleset.Set
	metrics metrics
	netns   int
	plain   bool

	mu       sync.Mutex // guards what follows
	conn     nfnetlink.Conn
	listener nfnetlink.Conn
	wanted   *proxy.State       // what the last Set asked for
	written  *proxy.State       // what is in the kernel, nil if that has to be read
	private  bool               // nobody else has the maps of wanted that Update changes
	contents nfnetlink.Contents // the elements that are in the kernel
	picks    map[string]bool
	failures int
	refused  []refusal

	told told // guards itself: Problems does not wait for a Set
}

// An Option changes how a Table is made.
type Option func(*Table)

// InNetNS works in the network namespace of the file descriptor fd, in place of that of the calling thread.
func InNetNS(fd int) Option { return func(t *Table) { t.netns = fd } }

// WithoutOwner leaves the table without an owner, as on kernels before 6.9: others can change it, and Run repairs.
func WithoutOwner() Option { return func(t *Table) { t.plain = true } }

// New opens the sockets of a Table and finds out what the kernel can. It writes no rule yet. Without InNetNS it works
// in the network namespace that the calling thread is in. reg takes the metrics; nil for none.
func New(log *slog.Logger, reg prometheus.Registerer, options ...Option) (*Table, error) {
	t := &Table{log: log, sets: map[string]ruleset.Set{}}
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
	if t.listener, err = nfnetlink.Listen(t.netns, t.conn.PID()); err != nil {
		_ = t.conn.Close()
		return nil, err
	}
	if !t.plain && !t.conn.CanOwn() {
		t.log.Info("the kernel has no table owner that the table survives: others can change table inet hythe")
		t.plain = true
	}
	return t, nil
}

// Close closes the sockets. The table stays in the kernel as it is.
func (t *Table) Close() error {
	return errors.Join(t.listener.Close(), t.conn.Close())
}

// Set makes the table hold s. It writes what differs from what is there, in one batch if the table is in use; a table
// that is filled for the first time is written in several. After an error it reads what is there, and isolates
// elements that the kernel refuses; the error then names them, and all others are in place. ctx ends a long Set
// between batches.
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
	t.failures, t.refused = maxFailures, nil
	err := t.write(ctx, false)
	if err != nil && ctx.Err() == nil {
		t.log.Warn("the kernel refused a change of table inet hythe: reading it and trying again", "error", err)
		t.metrics.failures.Inc()
		err = t.write(ctx, true)
	}
	t.tell()
	if err != nil {
		t.written = nil
		return fmt.Errorf("set table inet %s: %w", nfnetlink.TableName, err)
	}
	t.written = t.wanted
	return nil
}

// write applies the difference between what is there and what is wanted. If isolate is set, it reads what is there, and
// goes on after an error.
func (t *Table) write(ctx context.Context, isolate bool) error {
	if t.written != nil && !isolate {
		gone, come := only(*t.written, *t.wanted), only(*t.wanted, *t.written)
		changes := difference(ruleset.Encode(gone, t.contents), t.contents, ruleset.Encode(come, t.contents))
		return t.apply(ctx, nil, changes, len(changes), isolate)
	}
	there, err := read(t.conn)
	if err != nil {
		return err
	}
	if there.whole {
		t.own(there.Flags)
		t.contents, t.picks = there.contents, there.picks
		return t.apply(ctx, nil, difference(t.contents, t.contents, ruleset.Encode(*t.wanted, t.contents)), maxChanges, isolate)
	}
	changes := difference(nil, nil, ruleset.Encode(*t.wanted, nil))
	t.contents, t.picks = make(nfnetlink.Contents, len(changes)), map[string]bool{}
	prefix, chunk := ruleset.Skeleton(t.flags()), maxChanges
	if there.Exists {
		// An old table serves until the new one is whole: so all in one batch.
		t.log.Info("writing table inet hythe anew: it is another version's, or was changed by others")
		prefix, chunk = append([]netlink.Message{nfnetlink.DeleteTable(nfnetlink.TableName)}, prefix...), max(1, len(changes))
	}
	t.metrics.rebuilds.Inc()
	return t.apply(ctx, prefix, changes, chunk, isolate)
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

// apply writes prefix and changes in batches of at most chunk changes.
func (t *Table) apply(ctx context.Context, prefix []netlink.Message, changes []change, chunk int, isolate bool) error {
	order(changes, t.sets)
	var errs []error
	for len(prefix) > 0 || len(changes) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		n := min(len(changes), max(1, chunk))
		if err := t.commit(prefix, changes[:n], isolate); err != nil {
			errs = append(errs, err)
			if !isolate {
				break
			}
		}
		prefix, changes = nil, changes[n:]
	}
	return errors.Join(errs...)
}

// commit writes one batch. If the kernel refuses it and isolate is set, it halves the changes until those that fail
// are alone.
func (t *Table) commit(prefix []netlink.Message, changes []change, isolate bool) error {
	err := t.transact(prefix, changes)
	if err == nil {
		return nil
	}
	if len(changes) == 1 {
		t.failures--
		t.refused = append(t.refused, refusal{changes[0].Element, err})
		if len(prefix) > 0 { // what comes with the table may be bad, the table is not
			if err := t.transact(prefix, nil); err != nil {
				return fmt.Errorf("write the skeleton: %w", err)
			}
		}
		return fmt.Errorf("write element %s: %w", ruleset.ElementText(changes[0].Element), err)
	}
	if len(changes) == 0 || !isolate || t.failures <= 0 || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("write %d elements: %w", len(changes), err)
	}
	half := len(changes) / 2
	return errors.Join(t.commit(prefix, changes[:half], true), t.commit(nil, changes[half:], true))
}

// transact sends one batch: prefix, the chains that changes lead to and that are not there yet, and changes.
func (t *Table) transact(prefix []netlink.Message, changes []change) error {
	messages := prefix[:len(prefix):len(prefix)]
	added := map[string]bool{}
	for _, c := range changes {
		if !t.sets[c.Set].Verdicts || !c.insert || t.picks[c.new] || added[c.new] {
			continue
		}
		if pick, ok := ruleset.PickChainNamed(c.new); ok {
			messages = append(messages, nfnetlink.NewChain(pick)...)
			added[c.new] = true
		}
	}
	messages = append(messages, changeMessages(changes, t.sets)...)
	err := t.conn.Batch(messages)
	t.metrics.batches.Inc()
	if err != nil {
		return err
	}
	t.metrics.changes.Add(float64(len(changes)))
	for name := range added {
		t.picks[name] = true
	}
	for _, c := range changes {
		if c.insert {
			t.contents[c.Element] = c.new
		} else {
			delete(t.contents, c.Element)
		}
	}
	return nil
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
	}
	t.wanted.WriteText(w)
}
