package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"hythe.dev/hythe/conformance/bench/stub"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// freshAddress is where addresses begin that no endpoint has at first.
const freshAddress = 8_000_000

// An updater changes one Service after the other, and measures until the kernel has the new endpoint.
type updater struct {
	*agent
	server *stub.Server
	w      world
	seen   chan sighting
	look   ruleset
	fresh  int
	random *rand.Rand
}

// newUpdater starts a subject in a namespace and waits until it has written all.
func newUpdater(ctx context.Context, b *bench, who subject, w world) (*updater, error) {
	u := &updater{w: w, seen: make(chan sighting, 1<<20), random: rand.New(rand.NewPCG(1, uint64(w.services)))} //nolint:gosec // no secret
	var err error
	if u.server, err = w.serve(); err != nil {
		return nil, err
	}
	s, err := newSpace(fmt.Sprint("update-", w.services), b.dir, u.server)
	if err != nil {
		return nil, err
	}
	if u.agent, err = s.start(b.programs, who); err != nil {
		return nil, errors.Join(err, s.close())
	}
	_, err = u.wait(ctx, w)
	if err == nil {
		u.look, err = watchElements(s.name, func(s sighting) { u.seen <- s })
	}
	if err != nil {
		return nil, errors.Join(err, u.end())
	}
	return u, nil
}

func (u *updater) end() error {
	if u.look.conn != nil {
		u.look.close()
	}
	return errors.Join(u.stop(syscall.SIGTERM), u.close())
}

// endpoint replaces an endpoint of a Service by one that was nowhere before.
func (u *updater) endpoint(ctx context.Context) (ms float64, err error) {
	i := u.random.IntN(u.w.services)
	addresses := u.w.addresses(i)
	u.fresh++
	a := endpoint(freshAddress + u.fresh)
	addresses[u.random.IntN(len(addresses))] = a
	return u.until(ctx, u.w.slice(i, addresses), func(s sighting) bool { return s.addr == a })
}

// service gives a Service a port that no Service had before.
func (u *updater) service(ctx context.Context) (ms float64, err error) {
	i := u.random.IntN(u.w.services)
	o := u.w.service(i)
	u.fresh++
	o.Spec.Ports[0].Port = int32(1024 + u.fresh)
	frontend := netip.AddrPortFrom(clusterIP(i), uint16(o.Spec.Ports[0].Port)) //nolint:gosec // a few thousand
	return u.until(ctx, o, func(s sighting) bool { return s.frontend == frontend })
}

// until sends a change and returns how long it took until the kernel told of what it leads to, in ms.
func (u *updater) until(ctx context.Context, o stub.Object, is func(sighting) bool) (float64, error) {
	change, err := u.server.Put(o)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	change.Send()
	limit := time.After(90 * time.Second)
	for {
		select {
		case s := <-u.seen:
			if is(s) {
				return float64(s.at.Sub(begin).Microseconds()) / 1000, nil
			}
		case <-limit:
			return 0, fmt.Errorf("%s did not write a change of %s in 90 seconds: see %s", u.who, o.GetName(), u.log.Name())
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// update is the benchmark of one change. Sizes are measured in turns, so that what else runs on the machine meets all.
func (b *bench) update(ctx context.Context) error {
	sizes, changes := []int{100, 1000, 10_000}, 400
	if b.short {
		sizes, changes = []int{100, 300}, 15
	}
	var errs []error
	if b.wants(hythe) && (b.again || !b.results.has("update", sizes[len(sizes)-1], hythe)) {
		errs = append(errs, b.updateAlone(ctx, sizes, changes), b.updateOf(ctx, hythe, sizes, changes))
	}
	if b.wants(nftables) {
		for _, n := range sizes { // one at a time: each of its writes is work for seconds, which others would wait for
			if !b.again && b.results.has("update", n, nftables) || ctx.Err() != nil {
				continue
			}
			errs = append(errs, b.updateOf(ctx, nftables, []int{n}, min(changes/5, 2000/n+4)))
		}
	}
	return errors.Join(errs...)
}

func (b *bench) updateOf(ctx context.Context, who subject, sizes []int, changes int) (err error) {
	values := map[measurement][]float64{}
	var all []*updater
	defer func() {
		for _, u := range all {
			err = errors.Join(err, u.end())
		}
	}()
	for _, n := range sizes {
		u, err := newUpdater(ctx, b, who, world{services: n, endpoints: 3})
		if err != nil {
			return err
		}
		all = append(all, u)
	}
	for range changes {
		for _, u := range all {
			if err := u.round(ctx, values); err != nil {
				return b.addAll(values, err)
			}
		}
	}
	if who == hythe {
		growth(values, sizes[0], sizes[len(sizes)-1])
	}
	return b.addAll(values, nil)
}

const (
	endpointUpdate = "an endpoint, from event to kernel, ms"
	serviceUpdate  = "a Service's port, from event to kernel, ms"
)

// round makes one change of each kind, and adds to values.
func (u *updater) round(ctx context.Context, values map[measurement][]float64) error {
	for _, kind := range []struct {
		what   string
		change func(context.Context) (float64, error)
	}{{endpointUpdate, u.endpoint}, {serviceUpdate, u.service}} {
		ms, err := kind.change(ctx)
		if err != nil {
			return err
		}
		m := measurement{"update", kind.what, u.who, u.w.services, u.w.endpoints}
		values[m] = append(values[m], ms)
		time.Sleep(time.Duration(10+u.random.IntN(30)) * time.Millisecond)
	}
	return nil
}

// growth adds how many times as long the slowest updates take at the biggest size as at the smallest one.
func growth(values map[measurement][]float64, smallest, biggest int) {
	for _, what := range []string{endpointUpdate, serviceUpdate} {
		p99 := func(services int) float64 {
			return newRow(measurement{}, values[measurement{"update", what, hythe, services, 3}]).P99
		}
		m := measurement{"update", fmt.Sprintf("%s: p99, times that of %d Services", what, smallest), hythe, biggest, 3}
		values[m] = []float64{p99(biggest) / p99(smallest)}
	}
}

// updateAlone measures Builder and Table in this process: from a Snapshot in memory to the kernel.
func (b *bench) updateAlone(ctx context.Context, sizes []int, changes int) error {
	for _, n := range sizes {
		w := world{services: n, endpoints: 3}
		values, err := w.updates(ctx, changes)
		if err != nil {
			return err
		}
		if err := b.results.add(measurement{"update", "an endpoint, from Snapshot to kernel, ms", hythe, n, w.endpoints}, values); err != nil {
			return err
		}
	}
	return nil
}

func (w world) updates(ctx context.Context, changes int) (out []float64, err error) {
	table, end, err := newTable()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	var history model.History
	var builder proxy.Builder
	s := history.Note(w.snapshot(), nil, true)
	state, _ := builder.Build(s, nodeName, proxy.DefaultSettings())
	if err := table.Set(ctx, state); err != nil {
		return nil, err
	}
	keys := s.Endpoints.SortedKeys()
	for n := range changes {
		next, key := *s, keys[n%len(keys)]
		addresses := w.addresses(n % w.services)
		addresses[0] = endpoint(freshAddress + n)
		next.Endpoints = s.Endpoints.With(key, endpointsOf(addresses))
		s = history.Note(&next, []model.Key{key}, false)
		begin := time.Now()
		change, _, ok := builder.Update(s, nodeName, proxy.DefaultSettings())
		if !ok {
			return nil, errors.New("a change of endpoints is no update")
		}
		if done, err := table.Update(ctx, change); err != nil || !done {
			return nil, errors.Join(errors.New("the table was not updated"), err)
		}
		out = append(out, float64(time.Since(begin).Microseconds())/1000)
	}
	return out, nil
}
