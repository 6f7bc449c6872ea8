package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

// alive is the benchmark of connections that are there while everything else changes.
func (b *bench) alive(ctx context.Context) error {
	w, conns, restarts, upgrades, changes := world{services: 1000, endpoints: 3}, 10_000, 20, 5, 1000
	if b.short {
		w, conns, restarts, upgrades, changes = world{services: 30, endpoints: 3}, 200, 2, 1, 20
	}
	if !b.wants(hythe) || b.results.has("alive", w.services, hythe) && !b.again {
		return nil
	}
	if b.other == "" {
		upgrades = 0
	}
	return b.aliveOf(ctx, w, conns, restarts, upgrades, changes)
}

// A crowd are connections, each of which has said something before.
type crowd []net.Conn

func (b *bench) aliveOf(ctx context.Context, w world, n, restarts, upgrades, changes int) (err error) {
	p, err := newPath(ctx, b, hythe, w, "alive")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	var c crowd
	defer func() {
		for _, one := range c {
			if one != nil {
				_ = one.Close()
			}
		}
	}()
	for i := range n {
		one, err := p.dial(ctx, probed(w.services)[i%3])
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		c = append(c, one)
	}
	if lost := c.ask(); lost > 0 {
		return fmt.Errorf("%d of %d connections never worked", lost, n)
	}
	values := map[measurement][]float64{}
	note := func(what string, lost, times int) {
		values[measurement{"alive", fmt.Sprintf("lost of %d connections in %d %s", n, times, what), hythe, w.services, w.endpoints}] = []float64{float64(lost)}
	}
	defer func() { err = b.addAll(values, err) }()
	lost := 0
	for i := range restarts {
		signal := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2]
		if err := p.restart(ctx, b.programs, w, signal); err != nil {
			return err
		}
		lost += c.ask()
	}
	note("restarts", lost, restarts)
	lost = 0
	for i := range upgrades {
		programs := b.programs
		if i%2 == 0 {
			programs.hythe = b.other
		}
		if err := p.restart(ctx, programs, w, syscall.SIGTERM); err != nil {
			return err
		}
		lost += c.ask()
	}
	if upgrades > 0 {
		note("upgrades to another version of the rules", lost, upgrades)
	}
	if err := p.changeOthers(w, changes); err != nil {
		return err
	}
	note("changes of other Services", c.ask(), changes)
	return nil
}

// askTimeout is how long all connections of a crowd may take to answer.
const askTimeout = 20 * time.Second

// ask sends a word over each connection and returns how many do not give it back in time. Those are asked no more.
func (c crowd) ask() (lost int) {
	end := time.Now().Add(askTimeout)
	words := make([][]byte, len(c))
	for i, one := range c { // all words are on their way before the first answer is waited for
		if one == nil {
			continue
		}
		words[i] = binary.BigEndian.AppendUint64(nil, uint64(i)<<32|rand.Uint64N(1<<32)) //nolint:gosec // no secret
		if one.SetDeadline(end) == nil {
			_, _ = one.Write(words[i])
		}
	}
	for i, one := range c {
		if one == nil {
			continue
		}
		got := make([]byte, len(words[i]))
		if _, err := io.ReadFull(one, got); err != nil || !bytes.Equal(got, words[i]) {
			_ = one.Close()
			c[i] = nil
			lost++
		}
	}
	return lost
}

// restart ends the agent and starts another one, and waits until that one is ready.
func (p *path) restart(ctx context.Context, programs programs, w world, signal syscall.Signal) error {
	if err := p.stop(signal); err != nil {
		return err
	}
	next, err := p.start(programs, hythe)
	if err != nil {
		return err
	}
	p.agent = next
	for begin := time.Now(); time.Since(begin) < time.Minute && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if _, err := p.get(ctx, "http://127.0.0.1:9903/readyz"); err == nil {
			_, err := p.wait(ctx, w)
			return err
		}
		if err := p.ended(); err != nil {
			return err
		}
	}
	return errors.Join(ctx.Err(), errors.New("hythe is not ready after a restart"))
}

// changeOthers changes endpoints of Services that no connection is to, and waits for the last change.
func (p *path) changeOthers(w world, changes int) error {
	seen := make(chan sighting, 1<<16)
	look, err := watchElements(p.name, func(s sighting) { seen <- s })
	if err != nil {
		return err
	}
	defer look.close()
	last := endpoint(freshAddress + changes - 1)
	for n := range changes {
		i := 1 + n%(w.services/2-1) // neither the first nor the middle one
		addresses := w.addresses(i)
		addresses[n%len(addresses)] = endpoint(freshAddress + n)
		change, err := p.api.Put(w.slice(i, addresses))
		if err != nil {
			return err
		}
		change.Send()
		time.Sleep(5 * time.Millisecond)
	}
	for limit := time.After(20 * time.Second); ; {
		select {
		case s := <-seen:
			if s.addr == last {
				return nil
			}
		case <-limit:
			return errors.New("the last change did not come to the kernel")
		}
	}
}
