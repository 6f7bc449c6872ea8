package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/proxy"
)

const (
	// again is how long after a change its frontends are looked at once more. A packet that was under way when the
	// rules changed has made its entry by then.
	again = time.Second
	// pause is between two looks: changes in it are one.
	pause = 100 * time.Millisecond
	// maxChanged is how many frontends may wait until they come into a State.
	maxChanged = 1000
)

// Flows ends flows in one network namespace. Set says what is right, Run does the work.
type Flows struct {
	log      *slog.Logger
	netns    int
	refuse   func([]Tuple) error // nil: TCP connections are left alone
	deleted  prometheus.Counter
	reset    prometheus.Counter
	failures prometheus.Counter
	wake     chan struct{}

	mu    sync.Mutex   // guards what follows
	base  *proxy.State // the last one that was in the kernel as a whole
	state *proxy.State // the last one
	// changed are frontends of Updates, which base and state do not have yet; nil is one that is gone.
	changed map[proxy.Frontend]*backends
	now     question // to look at as soon as possible
	later   question // to look at again, at due
	due     time.Time
	lasts   lingering
}

// backends are those of a frontend, with its Service.
type backends struct {
	proxy.Backends
	owner model.Key
}

// An Option changes how Flows are made.
type Option func(*Flows)

// InNetNS works in the network namespace of the file descriptor fd, in place of that of the calling thread.
func InNetNS(fd int) Option { return func(f *Flows) { f.netns = fd } }

// Resetting has TCP connections reset where their Service wants it. end makes the kernel answer what they send with a
// reset.
func Resetting(end func([]Tuple) error) Option { return func(f *Flows) { f.refuse = end } }

// New makes Flows. reg takes the metrics; nil for none.
func New(log *slog.Logger, reg prometheus.Registerer, options ...Option) (*Flows, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hythe_conntrack_" + name, Help: help})
	}
	f := &Flows{
		log: log, wake: make(chan struct{}, 1),
		deleted:  counter("deleted_flows_total", "UDP flows that were ended since their endpoint is gone."),
		reset:    counter("reset_connections_total", "TCP connections that were reset since their endpoint is gone."),
		failures: counter("failures_total", "Times that flows could not be listed or deleted."),
	}
	for _, o := range options {
		o(f)
	}
	if reg == nil {
		return f, nil
	}
	usage := func(name, help string, of func(Usage) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hythe_conntrack_" + name, Help: help}, func() float64 {
			u, _ := ReadUsage() // a kernel that does not say has none
			return float64(of(u))
		})
	}
	loss := func(name, help string, of func(Losses) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "hythe_conntrack_" + name + "_total", Help: help},
			func() float64 { return float64(of(ReadLosses())) })
	}
	var errs []error
	for _, c := range []prometheus.Collector{f.deleted, f.reset, f.failures,
		loss("dropped_packets", "Packets of new connections that the kernel dropped since there was no room to track them.", func(l Losses) uint64 { return l.Dropped }),
		loss("early_drops", "Tracked connections without an answer that had to make room.", func(l Losses) uint64 { return l.EarlyDropped }),
		loss("insert_failures", "Packets of new connections that were dropped since another had made the same entry.", func(l Losses) uint64 { return l.InsertFailed }),
		usage("entries", "Connections that the kernel tracks.", func(u Usage) int { return u.Entries }),
		usage("entries_limit", "Connections that the kernel can track.", func(u Usage) int { return u.Limit }),
	} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics of conntrack: %w", err)
	}
	return f, nil
}

// Set says what the rules in the kernel are now: call it after they were changed. The first call has all flows looked
// at. Where the change failed, in part or as a whole, whole is false: then its flows are looked at now, since most of it
// may be there, and with the next call again. So are those of frontends that the kernel refused, and of no others.
func (f *Flows) Set(s proxy.State, whole bool, refused ...proxy.Frontend) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp()
	base := proxy.State{}
	if f.base == nil {
		f.now.all = true
	} else {
		base = *f.base
	}
	f.lasts.change(&f.now, base, s, f.now.add(base, s))
	if f.state = &s; whole {
		f.base = without(&s, refused)
	}
	if f.now.any() {
		f.poke()
	}
}

// without is s without some frontends.
func without(s *proxy.State, frontends []proxy.Frontend) *proxy.State {
	if len(frontends) == 0 {
		return s
	}
	next := *s
	next.Frontends = maps.Clone(next.Frontends)
	for _, frontend := range frontends {
		delete(next.Frontends, frontend)
	}
	return &next
}

// Update says that the rules in the kernel are those of the last Set with a change to them.
func (f *Flows) Update(c proxy.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = map[proxy.Frontend]*backends{}
	}
	for frontend := range c.Gone.Frontends {
		f.changed[frontend] = nil
	}
	for frontend, b := range c.Come.Frontends {
		f.changed[frontend] = &backends{b, c.Come.Owners[frontend]}
	}
	if len(f.changed) >= maxChanged { // the endpoints of before stay in memory until then
		f.catchUp()
	}
	f.lasts.change(&f.now, c.Gone, c.Come, f.now.add(c.Gone, c.Come))
	if f.now.any() {
		f.poke()
	}
}

// catchUp applies what Update noted. Who looks at flows may still have the State before. It is called with mu held.
func (f *Flows) catchUp() {
	if len(f.changed) == 0 || f.state == nil {
		return
	}
	state, base := f.patched(f.state), f.base
	switch base {
	case f.state:
		base = state
	case nil:
	default: // the last Set was not whole
		base = f.patched(base)
	}
	f.base, f.state, f.changed = base, state, nil
}

// patched is s with the frontends that changed.
func (f *Flows) patched(s *proxy.State) *proxy.State {
	next, owned := *s, false
	next.Frontends = maps.Clone(next.Frontends)
	for frontend, b := range f.changed {
		var owner model.Key
		if b == nil {
			delete(next.Frontends, frontend)
		} else {
			next.Frontends[frontend], owner = b.Backends, b.owner
		}
		if next.Owners[frontend] == owner {
			continue // as with most changes
		}
		if !owned {
			next.Owners, owned = maps.Clone(next.Owners), true
		}
		if delete(next.Owners, frontend); b != nil {
			next.Owners[frontend] = owner
		}
	}
	return &next
}

func (f *Flows) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// add asks for what changed from before to now. It is newer than what is asked for already. ways are those that came to an end while
// their endpoint did not.
func (q *question) add(before, now proxy.State) (ways []way) {
	if q.some == nil {
		q.some, q.gone = map[proxy.Frontend]pods{}, map[filter]struct{}{}
	}
	changed := living(before, now, Build(before, now))
	maps.Copy(q.some, changed)
	filters, ways := gone(before, now, changed)
	maps.Copy(q.gone, filters)
	return ways
}

func (q question) any() bool { return q.all || len(q.some) > 0 }

// and is both questions, of which q is the newer one.
func (q question) and(o question) question {
	out := question{all: q.all || o.all, some: map[proxy.Frontend]pods{}, gone: map[filter]struct{}{}}
	for _, from := range []question{o, q} {
		maps.Copy(out.some, from.some)
		maps.Copy(out.gone, from.gone)
	}
	return out
}

// Run ends flows until ctx is done. What fails is logged, counted, and tried again.
func (f *Flows) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-timer.C:
		}
		q, s := f.take(time.Now())
		if q.any() {
			ended, err := f.look(ctx, q, s)
			f.report(ctx, q, ended, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		timer.Reset(f.wait(time.Now()))
	}
}

// take returns what is to be looked at now, and notes that it is to be looked at again.
func (f *Flows) take(now time.Time) (question, proxy.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == nil {
		return question{}, proxy.State{}
	}
	q := f.now
	if f.later.any() && !now.Before(f.due) {
		q, f.later = q.and(f.later), question{}
	}
	if f.now.any() {
		f.later, f.due = f.now.and(f.later), now.Add(again)
	}
	f.now = question{}
	if q.any() {
		f.catchUp()
	}
	return q, *f.state
}

// wait is how long Run may sleep.
func (f *Flows) wait(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.later.any() {
		return time.Hour
	}
	return max(0, f.due.Sub(now))
}

func (f *Flows) report(ctx context.Context, q question, ended map[proxy.Protocol]int, err error) {
	f.deleted.Add(float64(ended[proxy.UDP]))
	f.reset.Add(float64(ended[proxy.TCP]))
	for protocol, n := range ended {
		f.log.Info("flows to endpoints that are gone were ended", "protocol", protocol, "flows", n)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	f.failures.Inc()
	f.log.Warn("flows to endpoints that are gone could not all be ended, it is tried again", "error", err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.later, f.due = f.later.and(q), time.Now().Add(again)
}

// look lists what is asked for, and ends what is stale by s. It returns how many it ended, and goes on after an error.
func (f *Flows) look(ctx context.Context, q question, s proxy.State) (map[proxy.Protocol]int, error) {
	c, err := dial(f.netns)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	local, err := link.LocalAddresses(f.netns)
	if err != nil {
		return nil, err
	}
	isLocal := func(a netip.Addr) bool { return local[a] }
	ended := map[proxy.Protocol]int{}
	var errs []error
	for _, list := range q.filters() {
		entries, err := c.list(list)
		errs = append(errs, err)
		entries = slices.DeleteFunc(entries, func(e Entry) bool {
			is := q.stale(e, s, isLocal)
			if !is && !list.endpoint.IsValid() { // all of TCP was asked for
				f.remember(q, e, s, isLocal)
			}
			return !is || e.Protocol == proxy.TCP && f.refuse == nil
		})
		// Some at a time: while a connection is refused and has its entry still, it goes on.
		for some := range slices.Chunk(entries, 1000) {
			if err := ctx.Err(); err != nil {
				return ended, err
			}
			errs = append(errs, f.end(c, some, ended))
		}
	}
	return ended, errors.Join(errs...)
}

// remember notes how a connection came of which nothing else will tell: it began under an agent before this one, or when nothing was reset.
func (f *Flows) remember(q question, e Entry, s proxy.State, local func(netip.Addr) bool) {
	w, lingers := q.lingers(e, s, local)
	owner, is := s.Owners[w.frontend]
	if !lingers || !is {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lasts.note(owner, w)
}

// end deletes entries, and counts them in ended. TCP connections are refused before, and probed after that.
func (f *Flows) end(c conn, entries []Entry, ended map[proxy.Protocol]int) error {
	var refuse []Tuple
	for _, e := range entries {
		if e.Protocol == proxy.TCP {
			refuse = append(refuse, e.Original, e.Reply)
		}
	}
	var errs []error
	if len(refuse) > 0 {
		// One that is not refused comes to another endpoint, if there is any, which knows it not and resets it.
		errs = append(errs, f.refuse(refuse))
	}
	for _, e := range entries {
		if err := c.remove(e); err != nil {
			errs = append(errs, err)
			continue
		}
		ended[e.Protocol]++
	}
	if len(refuse) > 0 {
		errs = append(errs, probe(f.netns, refuse))
	}
	return errors.Join(errs...)
}
