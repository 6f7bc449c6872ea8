package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"hythe.dev/hythe/conformance/bench/stub"
)

// A recorded change replaces one endpoint, at a time after the begin.
type recorded struct {
	at   time.Duration
	addr netip.Addr
	send stub.Prepared
}

// record makes a watch of so many changes a second: each replaces one endpoint of a Service by a new one. It is encoded
// before it is played.
func record(server *stub.Server, w world, perSecond int, length time.Duration) ([]recorded, error) {
	now := make([][]netip.Addr, w.services)
	for i := range now {
		now[i] = w.addresses(i)
	}
	out := make([]recorded, 0, perSecond*int(length/time.Second))
	for n := range cap(out) {
		i := n * 7919 % w.services // a prime: Services in no order
		a := endpoint(freshAddress + n)
		now[i] = slices.Clone(now[i])
		now[i][n/w.services%len(now[i])] = a
		change, err := server.Put(w.slice(i, now[i]))
		if err != nil {
			return nil, err
		}
		out = append(out, recorded{time.Duration(n) * time.Second / time.Duration(perSecond), a, change})
	}
	return out, nil
}

// churn is the benchmark of many endpoints that change all the time.
func (b *bench) churn(ctx context.Context) error {
	w, rate, length := world{services: 5000, endpoints: 50}, 500, time.Minute
	if b.short {
		w, rate, length = world{services: 50, endpoints: 50}, 100, 3*time.Second
	}
	if !b.wants(hythe) || b.results.has("churn", w.services) && !b.again {
		return nil
	}
	for _, cached := range []bool{false, true} {
		if err := b.churnOf(ctx, w, rate, length, cached); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) churnOf(ctx context.Context, w world, rate int, length time.Duration, cached bool) (err error) {
	server, err := w.serve()
	if err != nil {
		return err
	}
	watch, err := record(server, w, rate, length)
	if err != nil {
		return err
	}
	s, err := newSpace("churn", b.dir, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	lockups := kernelComplaints()
	s.cached = cached
	begin := time.Now()
	a, err := s.start(b.programs, hythe)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop(syscall.SIGTERM)) }()
	last, err := a.wait(ctx, w)
	if err != nil {
		return err
	}
	first := last.Sub(begin).Seconds()
	_, filled, err := a.memory()
	if err != nil {
		return err
	}
	busy, err := a.cpu()
	if err != nil {
		return err
	}
	lags, err := a.play(ctx, watch)
	if err != nil {
		return err
	}
	after, err := a.cpu()
	if err != nil {
		return err
	}
	now, peak, err := a.memory()
	if err != nil {
		return err
	}
	suffix := ""
	if cached {
		suffix = ", with --cache"
	}
	values := map[measurement][]float64{}
	for what, v := range map[string][]float64{
		fmt.Sprintf("lag at %d changes a second%s, ms", rate, suffix): lags,
		"from exec to all in the kernel" + suffix + ", s":             {first},
		"processors busy" + suffix:                                    {(after - busy) / length.Seconds()},
		"memory at most when filled" + suffix + ", MB":                {filled},
		"memory at the end" + suffix + ", MB":                         {now},
		"memory at most" + suffix + ", MB":                            {peak},
		"kernel lockups and stalls" + suffix:                          {float64(kernelComplaints() - lockups)},
	} {
		values[measurement{"churn", what, hythe, w.services, w.endpoints}] = v
	}
	return b.addAll(values)
}

// play sends the recorded changes at their times, and returns how long after its time each was in the kernel, in ms.
func (a *agent) play(ctx context.Context, watch []recorded) ([]float64, error) {
	var mu sync.Mutex
	seen := map[netip.Addr]time.Time{}
	look, err := watchElements(a.name, func(s sighting) {
		mu.Lock()
		defer mu.Unlock()
		if _, is := seen[s.addr]; !is {
			seen[s.addr] = s.at
		}
	})
	if err != nil {
		return nil, err
	}
	defer look.close()
	begin := time.Now()
	for _, r := range watch {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Until(begin.Add(r.at))):
		}
		r.send.Send()
	}
	left := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(watch) - len(seen)
	}
	// An endpoint that was replaced again before it was written never comes: that is counted, and may not be many.
	for end := time.Now(); left() > 0 && time.Since(end) < 5*time.Second; {
		time.Sleep(50 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	var lags []float64
	for _, r := range watch {
		if at, is := seen[r.addr]; is {
			lags = append(lags, float64(at.Sub(begin.Add(r.at)).Microseconds())/1000)
		}
	}
	if missing := len(watch) - len(lags); missing > len(watch)/100 {
		return nil, fmt.Errorf("%d of %d changes never came to the kernel", missing, len(watch))
	}
	return lags, a.ended()
}

// kernelComplaints is how many lockups and stalls the kernel has told of.
func kernelComplaints() int {
	out, err := exec.Command("dmesg").Output()
	if err != nil {
		return 0
	}
	return bytes.Count(out, []byte("soft lockup")) + bytes.Count(out, []byte("rcu_sched self-detected stall")) + bytes.Count(out, []byte("blocked for more than"))
}
