package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// A recorded change replaces one endpoint, at a time after the begin.
type recorded struct {
	at   time.Duration
	addr netip.Addr
	send func()
}

// record makes a watch of so many changes a second: each replaces one endpoint of a Service by a new one. What prepare
// returns sends a change.
func record(w world, perSecond int, length time.Duration, prepare func(*discoveryv1.EndpointSlice) (send func(), err error)) ([]recorded, error) {
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
		send, err := prepare(w.slice(i, now[i]))
		if err != nil {
			return nil, err
		}
		out = append(out, recorded{time.Duration(n) * time.Second / time.Duration(perSecond), a, send})
	}
	return out, nil
}

// churn is the benchmark of many endpoints that change all the time.
func (b *bench) churn(ctx context.Context) error {
	w, rate, length := world{services: 5000, endpoints: 50}, 500, time.Minute
	if b.short {
		w, rate, length = world{services: 50, endpoints: 50}, 100, 3*time.Second
	}
	if !b.wants(hythe) || b.results.has("churn", w.services, hythe) && !b.again {
		return nil
	}
	return errors.Join(b.churnOf(ctx, w, rate, length, true), b.churnOf(ctx, w, rate, length, false))
}

// churnOf plays a recorded watch that is encoded before.
func (b *bench) churnOf(ctx context.Context, w world, rate int, length time.Duration, cached bool) (err error) {
	server, err := w.serve()
	if err != nil {
		return err
	}
	watch, err := record(w, rate, length, func(slice *discoveryv1.EndpointSlice) (func(), error) {
		change, err := server.Put(slice)
		return change.Send, err
	})
	if err != nil {
		return err
	}
	s, err := newSpace("churn", b.dir, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.cached = cached
	runtime.GC() // of what encoding left, which nobody shall wait for
	c := churning{bench: "churn", w: w, rate: rate}
	if cached {
		c.suffix = ", with --cache"
	}
	return b.measureChurn(ctx, s, c, watch)
}

// A churning is what rows of endpoints that change all the time are about.
type churning struct {
	bench, suffix string
	w             world
	rate          int
}

// measureChurn starts Hythe in s, plays the changes when it has written all, and adds the rows.
func (b *bench) measureChurn(ctx context.Context, s *space, c churning, watch []recorded) (err error) {
	lockups := kernelComplaints()
	begin := time.Now()
	a, err := s.start(b.programs, hythe)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop(syscall.SIGTERM)) }()
	last, err := a.wait(ctx, c.w)
	if err != nil {
		return err
	}
	first := last.Sub(begin).Seconds()
	_, filled, errMemory := a.memory()
	busy, errBusy := a.cpu()
	if err := errors.Join(errMemory, errBusy); err != nil {
		return err
	}
	started := time.Now()
	lags, err := a.play(ctx, watch)
	if err != nil {
		return err
	}
	length := time.Since(started).Seconds()
	after, errBusy := a.cpu()
	now, peak, errMemory := a.memory()
	if err := errors.Join(errMemory, errBusy); err != nil {
		return err
	}
	missing := len(watch) - len(lags)
	values := map[measurement][]float64{}
	for what, v := range map[string][]float64{
		fmt.Sprintf("lag at %d changes a second%s, ms", c.rate, c.suffix): lags,
		"changes that did not come" + c.suffix:                            {float64(missing)},
		"from exec to all in the kernel" + c.suffix + ", s":               {first},
		"processors busy" + c.suffix:                                      {(after - busy) / length},
		"memory at most when filled" + c.suffix + ", MB":                  {filled},
		"memory at the end" + c.suffix + ", MB":                           {now},
		"memory at most" + c.suffix + ", MB":                              {peak},
		"kernel lockups and stalls" + c.suffix:                            {float64(kernelComplaints() - lockups)},
	} {
		values[measurement{c.bench, what, hythe, c.w.services, c.w.endpoints}] = v
	}
	if missing > 0 {
		err = fmt.Errorf("%d of %d changes never came to the kernel", missing, len(watch))
	}
	return b.addAll(values, err)
}

// play sends the recorded changes at their times, and returns how long after its time each was in the kernel, in ms.
func (a *agent) play(ctx context.Context, watch []recorded) ([]float64, error) {
	var mu sync.Mutex
	wanted, seen := map[netip.Addr]bool{}, map[netip.Addr]time.Time{}
	for _, r := range watch {
		wanted[r.addr] = true
	}
	look, err := watchElements(a.name, func(s sighting) {
		mu.Lock()
		defer mu.Unlock()
		if _, is := seen[s.addr]; !is && wanted[s.addr] {
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
		r.send()
	}
	left := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(watch) - len(seen)
	}
	for end := time.Now(); left() > 0 && time.Since(end) < late && ctx.Err() == nil; {
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
	return lags, a.ended()
}

// late is how long after the last change one may come to the kernel, to be one that came.
const late = 10 * time.Second

// kernelComplaints is how many lockups and stalls the kernel has told of.
func kernelComplaints() int {
	out, err := exec.Command("dmesg").Output()
	if err != nil {
		return 0
	}
	return bytes.Count(out, []byte("soft lockup")) + bytes.Count(out, []byte("rcu_sched self-detected stall")) + bytes.Count(out, []byte("blocked for more than"))
}
