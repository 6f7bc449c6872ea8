package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/proxy"
)

const (
	// again is how long after a change its frontends are looked at once more. A packet that was under way when the
	// rules changed has made its entry by then.
	again = time.Second
	// pause is between two looks: changes in it are one.
	pause = 100 * time.Millisecond
)

// Flows ends flows in one network namespace. Set says what is right, Run does the work.
type Flows struct {
	log      *slog.Logger
	netns    int
	deleted  prometheus.Counter
	failures prometheus.Counter
	wake     chan struct{}

	mu    sync.Mutex   // guards what follows
	base  *proxy.State // the last one that was in the kernel as a whole
	state *proxy.State // the last one
	now   question     // to look at as soon as possible
	later question     // to look at again, at due
	due   time.Time
}

// An Option changes how Flows are made.
type Option func(*Flows)

// InNetNS works in the network namespace of the file descriptor fd, in place of that of the calling thread.
func InNetNS(fd int) Option { return func(f *Flows) { f.netns = fd } }

// New makes Flows. reg takes the metrics; nil for none.
func New(log *slog.Logger, reg prometheus.Registerer, options ...Option) (*Flows, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hythe_conntrack_" + name, Help: help})
	}
	f := &Flows{
		log: log, wake: make(chan struct{}, 1),
		deleted:  counter("deleted_flows_total", "UDP and SCTP flows that were ended since their endpoint is gone."),
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
	var errs []error
	for _, c := range []prometheus.Collector{f.deleted, f.failures,
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
// may be there, and with the next call again.
func (f *Flows) Set(s proxy.State, whole bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.base == nil {
		f.now.all = true
		f.now.add(Build(proxy.State{}, s))
	} else {
		f.now.add(Build(*f.base, s))
	}
	if f.state = &s; whole {
		f.base = &s
	}
	if f.now.any() {
		f.poke()
	}
}

func (f *Flows) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (q *question) add(frontends []proxy.Frontend) {
	if q.some == nil {
		q.some = map[proxy.Frontend]struct{}{}
	}
	for _, f := range frontends {
		q.some[f] = struct{}{}
	}
}

func (q question) any() bool { return q.all || len(q.some) > 0 }

// and is both questions.
func (q question) and(o question) question {
	out := question{all: q.all || o.all, some: map[proxy.Frontend]struct{}{}}
	maps.Copy(out.some, q.some)
	maps.Copy(out.some, o.some)
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
			n, err := f.look(ctx, q, s)
			f.report(ctx, q, n, err)
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
		f.later, f.due = f.later.and(f.now), now.Add(again)
	}
	f.now = question{}
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

func (f *Flows) report(ctx context.Context, q question, n int, err error) {
	f.deleted.Add(float64(n))
	if n > 0 {
		f.log.Info("flows to endpoints that are gone were ended", "flows", n)
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

// look lists what is asked for, and deletes what is stale by s. It goes on after an error.
func (f *Flows) look(ctx context.Context, q question, s proxy.State) (deleted int, err error) {
	c, err := dial(f.netns)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	local, err := link.LocalAddresses(f.netns)
	if err != nil {
		return 0, err
	}
	isLocal := func(a netip.Addr) bool { return local[a] }
	var errs []error
	for _, list := range q.filters() {
		entries, err := c.list(list)
		errs = append(errs, err)
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return deleted, err
			}
			if !q.stale(e, s, isLocal) {
				continue
			}
			if err := c.remove(e); err != nil {
				errs = append(errs, err)
				continue
			}
			deleted++
		}
	}
	return deleted, errors.Join(errs...)
}
