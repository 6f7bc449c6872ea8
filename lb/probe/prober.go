package probe

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
)

// Options set the timers of a Prober. Zero values mean the defaults.
type Options struct {
	// Interval is the time from the start of one attempt to the start of the next, by default 200 ms.
	Interval time.Duration
	// Timeout of one attempt, by default 350 ms.
	Timeout time.Duration
	// Failures in a row that make a target bad, by default 2.
	Failures int
	// Concurrent bounds the attempts that run at the same time, by default 64.
	Concurrent int
}

func (o Options) withDefaults() Options {
	if o.Interval <= 0 {
		o.Interval = 200 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = 350 * time.Millisecond
	}
	if o.Failures <= 0 {
		o.Failures = 2
	}
	if o.Concurrent <= 0 {
		o.Concurrent = 64
	}
	return o
}

// A Prober probes targets. Make it with New; nothing is probed before Run.
type Prober struct {
	opts    Options
	slots   chan struct{}
	changed chan struct{}
	wake    chan struct{}
	attempt func(context.Context, lb.Target) error

	mu      sync.Mutex
	vips    map[netip.Addr][]lb.Probe
	targets map[lb.Target]*target
	// worked are the VIPs that were healthy before their pods were last replaced.
	worked map[netip.Addr]bool
}

// A target is what is known of one lb.Target.
type target struct {
	cancel   context.CancelFunc // nil until it is probed
	good     bool
	tried    bool
	failures int
	err      error
}

// New makes a Prober.
func New(opts Options) *Prober {
	opts = opts.withDefaults()
	return &Prober{
		opts: opts, slots: make(chan struct{}, opts.Concurrent),
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		attempt: attempt, targets: map[lb.Target]*target{},
	}
}

// Changed is readable after a target became good or bad.
func (p *Prober) Changed() <-chan struct{} { return p.changed }

// Set replaces what is probed. What is known of targets that stay is kept.
func (p *Prober) Set(vips map[netip.Addr][]lb.Probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	worked := map[netip.Addr]bool{}
	for vip := range vips {
		worked[vip] = p.healthy(vip)
	}
	p.vips, p.worked = vips, worked
	wanted := map[lb.Target]bool{}
	for _, pods := range vips {
		for _, pod := range pods {
			for _, t := range pod.Targets {
				wanted[t] = true
				if p.targets[t] == nil {
					p.targets[t] = &target{}
				}
			}
		}
	}
	for key, t := range p.targets {
		if !wanted[key] {
			if t.cancel != nil {
				t.cancel()
			}
			delete(p.targets, key)
		}
	}
	run.Wake(p.wake)
}

// Healthy reports whether a pod behind the VIP works. Where the pods that worked were just replaced by one that was not
// asked yet, the VIP stays healthy until that one has shown whether it works.
func (p *Prober) Healthy(vip netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.healthy(vip)
}

func (p *Prober) healthy(vip netip.Addr) bool {
	pods := p.vips[vip]
	return slices.ContainsFunc(pods, p.works) || p.worked[vip] && slices.ContainsFunc(pods, p.unknown)
}

// unknown is for a pod of which nothing bad is known, and not all that is good.
func (p *Prober) unknown(pod lb.Probe) bool {
	return !slices.ContainsFunc(pod.Targets, func(t lb.Target) bool { return p.targets[t].tried && !p.targets[t].good }) && !p.works(pod)
}

func (p *Prober) works(pod lb.Probe) bool {
	for _, t := range pod.Targets {
		if !p.targets[t].good {
			return false
		}
	}
	return true
}

// Settled reports whether each target has been tried to the end once, so that Healthy is no mere beginning.
func (p *Prober) Settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.targets {
		if !t.tried {
			return false
		}
	}
	return true
}

// WriteText writes one line for each target, for people.
func (p *Prober) WriteText(w io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := make([]lb.Target, 0, len(p.targets))
	for t := range p.targets {
		keys = append(keys, t)
	}
	slices.SortFunc(keys, func(a, b lb.Target) int {
		return cmp.Or(a.AddrPort.Compare(b.AddrPort), cmp.Compare(a.Path, b.Path))
	})
	for _, t := range keys {
		state := "good"
		if !p.targets[t].good {
			state = fmt.Sprintf("bad: %v", p.targets[t].err)
		}
		fmt.Fprintf(w, "probe %s%s %s\n", t.AddrPort, t.Path, state)
	}
}

// Run probes until ctx is done.
func (p *Prober) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		p.mu.Lock()
		for key, t := range p.targets {
			if t.cancel == nil {
				sub, cancel := context.WithCancel(ctx)
				t.cancel = cancel
				running.Go(func() { p.watch(sub, key, t) })
			}
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
}

// watch probes one target until ctx is done.
func (p *Prober) watch(ctx context.Context, key lb.Target, t *target) {
	ticker := time.NewTicker(p.opts.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case p.slots <- struct{}{}:
		}
		attemptCtx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
		err := p.attempt(attemptCtx, key)
		cancel()
		<-p.slots
		if ctx.Err() != nil {
			return
		}
		p.record(t, err)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// record notes the outcome of an attempt.
func (p *Prober) record(t *target, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, settled := t.good, t.tried
	t.err = err
	if err == nil {
		t.good, t.failures = true, 0
	} else if t.failures++; t.failures >= p.opts.Failures {
		t.good = false
	}
	t.tried = t.tried || err == nil || t.failures >= p.opts.Failures
	if t.good != before || t.tried != settled {
		run.Wake(p.changed)
	}
}

// attempt asks a target once, on a connection of its own: a kept one would say nothing about new ones.
func attempt(ctx context.Context, t lb.Target) error {
	if t.Path == "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.AddrPort.String())
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		// Reset it: thousands of closed connections would stand in TIME_WAIT.
		_ = conn.(*net.TCPConn).SetLinger(0)
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.AddrPort.String()+t.Path, nil)
	if err != nil {
		return fmt.Errorf("make probe request: %w", err)
	}
	req.Header.Set("User-Agent", "hythe-probe")
	// No proxy from the environment and no redirects: the endpoint itself must answer.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get: status %d", resp.StatusCode)
	}
	return nil
}
