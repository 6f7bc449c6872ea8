package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// one replaces an endpoint of a Service by one that was nowhere before, and returns how long it took until the kernel
// had it, in ms.
func (u *updater) one(ctx context.Context) (float64, error) {
	i := u.random.IntN(u.w.services)
	addresses := u.w.addresses(i)
	u.fresh++
	a := endpoint(freshAddress + u.fresh)
	addresses[u.random.IntN(len(addresses))] = a
	change, err := u.server.Put(u.w.slice(i, addresses))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	change.Send()
	limit := time.After(3 * time.Minute)
	for {
		select {
		case s := <-u.seen:
			if s.addr == a {
				return float64(s.at.Sub(begin).Microseconds()) / 1000, nil
			}
		case <-limit:
			return 0, fmt.Errorf("%s did not write endpoint %s in three minutes: see %s", u.who, netip.AddrPortFrom(a, podPort), u.log.Name())
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// update is the benchmark of one change. Sizes are measured in turns, so that what else runs on the machine meets all.
func (b *bench) update(ctx context.Context) error {
	sizes, changes := []int{100, 1000, 10_000}, 400
	if b.short {
		sizes, changes = []int{100, 300}, 30
	}
	if b.results.has("update", sizes[len(sizes)-1]) && !b.again {
		return nil
	}
	if b.wants(hythe) {
		if err := errors.Join(b.updateOf(ctx, hythe, sizes, changes), b.updateAlone(ctx, sizes, changes)); err != nil {
			return err
		}
	}
	if !b.wants(nftables) {
		return nil
	}
	for _, n := range sizes { // one at a time: each of its writes is work for seconds, which others would wait for
		if err := b.updateOf(ctx, nftables, []int{n}, min(changes, 4000/n+10)); err != nil {
			return err
		}
	}
	return nil
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
			ms, err := u.one(ctx)
			if err != nil {
				return err
			}
			m := measurement{"update", "from event to kernel, ms", who, u.w.services, u.w.endpoints}
			values[m] = append(values[m], ms)
			time.Sleep(time.Duration(10+u.random.IntN(30)) * time.Millisecond)
		}
	}
	return b.addAll(values)
}

// updateAlone measures Builder and Table in this process: from a Snapshot in memory to the kernel.
func (b *bench) updateAlone(ctx context.Context, sizes []int, changes int) error {
	for _, n := range sizes {
		w := world{services: n, endpoints: 3}
		values, err := w.updates(ctx, changes)
		if err != nil {
			return err
		}
		if err := b.results.add(measurement{"update", "from Snapshot to kernel, ms", hythe, n, w.endpoints}, values); err != nil {
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
	keys := model.SortedKeys(s.Endpoints)
	for n := range changes {
		next, key := *s, keys[n%len(keys)]
		next.Endpoints = maps.Clone(s.Endpoints)
		addresses := w.addresses(n % w.services)
		addresses[0] = endpoint(freshAddress + n)
		next.Endpoints[key] = endpointsOf(addresses)
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
