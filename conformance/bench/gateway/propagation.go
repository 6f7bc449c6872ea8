package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A step is when what happened with a new host.
type step struct {
	write, ack, event, first time.Time // the write of its Ingress, the API server's answer, its watch event, the first 200
}

// propagation measures how long a new host takes.
func (b *bench) propagation(ctx context.Context) error {
	type plan struct {
		bench        string
		routes, adds int
		churn        int // changes a second, of other hosts
	}
	plans := []plan{{"propagation", 3000, 300, 0}, {"propagation-churn", 5000, 300, 20}}
	if b.short {
		plans = []plan{{"propagation", 100, 10, 0}, {"propagation-churn", 100, 10, 20}}
	}
	var errs []error
	for _, p := range plans {
		if b.results.has(p.bench, p.routes) && !b.again {
			continue
		}
		err := b.propagate(ctx, p.bench, p.routes, p.adds, p.churn)
		if err != nil {
			err = fmt.Errorf("%s: %w", p.bench, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (b *bench) propagate(ctx context.Context, name string, routes, adds, perSecond int) error {
	w, err := newWorld(ctx, b.programs, filepath.Join(b.dir, name), false)
	defer w.stop()
	if err != nil {
		return err
	}
	if err := w.fill(ctx, routes); err != nil {
		return err
	}
	if w.spy, err = startSpy(filepath.Join(w.dir, "spy.sock"), w.socket(), nil); err != nil {
		return err
	}
	if err := w.startEnvoy(ctx, "envoy", w.spy.socket, readyPort); err != nil {
		return err
	}
	if _, err := probe(ctx, hostName(routes-1), 0); err != nil {
		return err
	}
	events, err := w.watchIngresses(ctx)
	if err != nil {
		return err
	}
	churning, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	var fault error
	if perSecond > 0 {
		group.Go(func() { fault = w.churn(churning, routes, perSecond) })
	}
	values := map[string][]float64{}
	for n := range adds {
		time.Sleep(time.Duration(100+37*(n%7)) * time.Millisecond) // not in step with anything
		if err = w.addOne(ctx, fmt.Sprintf("added-%d", n), events, values); err != nil {
			break
		}
	}
	stop()
	group.Wait()
	err = errors.Join(err, fault)
	for _, what := range slices.Sorted(maps.Keys(values)) {
		err = errors.Join(err, b.results.add(measurement{name, what, "hythe", routes}, values[what], err))
	}
	return err
}

func hostName(n int) string { return fmt.Sprintf("host-%d.test", n) }

// filled is the Ingress of one host of fill.
func filled(n int) ingress {
	return ingress{name: fmt.Sprintf("host-%d", n), host: hostName(n), service: fmt.Sprintf("s-%d", n%10), port: "http", annotations: map[string]any{}}
}

// fill writes Ingresses of that many hosts, and ten Services which all lead to one pod.
func (w *world) fill(ctx context.Context, routes int) error {
	p, err := startPod(false)
	if err != nil {
		return err
	}
	for n := range 10 {
		s := service{name: fmt.Sprintf("s-%d", n), number: 80, target: 8080}
		if err := w.apply(ctx, s.object(), s.slice([]endpoint{{p.address, false}})); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for n := range routes {
		group.Go(func() error { return w.apply(ctx, filled(n).object()) })
	}
	return group.Wait()
}

// churn changes other hosts, each to another Service and back.
func (w *world) churn(ctx context.Context, routes, perSecond int) error {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		i := filled(n % routes)
		i.service = fmt.Sprintf("s-%d", (n+1+n/routes)%10)
		if err := w.apply(context.WithoutCancel(ctx), i.object()); err != nil {
			return err
		}
	}
}

// addOne adds a host, notes the parts of its way in ms, and takes it away again.
func (w *world) addOne(ctx context.Context, name string, events *events, values map[string][]float64) error {
	i := ingress{name: name, host: name + ".test", service: "s-1", port: "http"}
	event := events.wait(name)
	w.spy.take()
	type answer struct {
		first time.Time
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		first, err := probe(ctx, i.host, 0)
		answers <- answer{first, err}
	}()
	s := step{write: time.Now()}
	if err := w.apply(ctx, i.object()); err != nil {
		return err
	}
	s.ack = time.Now()
	a := <-answers
	if a.err != nil {
		return a.err
	}
	s.first = a.first
	select {
	case s.event = <-event:
	case <-time.After(10 * time.Second):
		return fmt.Errorf("the API server tells nothing of Ingress %s", name)
	}
	// The acknowledgement may come after the first answer.
	deadline := time.Now().Add(5 * time.Second)
	messages := w.spy.take()
	for !s.note(i.host, messages, values) {
		if time.Now().After(deadline) {
			return fmt.Errorf("Envoy was sent no host %s, or did not acknowledge it: %v", i.host, messages)
		}
		time.Sleep(time.Millisecond)
		messages = append(messages, w.spy.take()...)
	}
	return w.remove(ctx, i.object())
}

// note adds the parts of a step to values, once all messages of it are there. The gateway's own part is the time from the event until the
// host was sent, without that in which Envoy had something to acknowledge.
func (s step) note(host string, messages []message, values map[string][]float64) bool {
	sent, acked, waited := time.Time{}, time.Time{}, time.Duration(0)
	open, since, nonce := map[string]bool{}, time.Time{}, ""
	for _, m := range messages {
		switch {
		case m.sent:
			if len(open) == 0 {
				since = later(m.at, s.event)
			}
			if sent.IsZero() && m.kind == "VirtualHost" && slices.ContainsFunc(m.names, func(n string) bool { return suffixOf(n, host) }) {
				sent, nonce = later(m.at, s.event), m.nonce // the other watch may have the event a bit later
				if len(open) > 0 {
					waited += sent.Sub(since)
				}
			}
			open[m.kind+m.nonce] = true
		case open[m.kind+m.nonce]:
			delete(open, m.kind+m.nonce)
			if len(open) == 0 && sent.IsZero() {
				waited += later(m.at, s.event).Sub(since)
			}
			if !sent.IsZero() && m.kind == "VirtualHost" && m.nonce == nonce {
				acked = m.at
			}
		}
	}
	if acked.IsZero() {
		return false
	}
	add := func(what string, d time.Duration) {
		values[what] = append(values[what], float64(d.Microseconds())/1000)
	}
	add("1 write to the API's answer ms", s.ack.Sub(s.write))
	add("2 write to watch event ms", s.event.Sub(s.write))
	add("3 watch event to send ms", sent.Sub(s.event))
	add("4 of that, the gateway's own ms", sent.Sub(s.event)-waited)
	add("5 send to acknowledgement ms", acked.Sub(sent))
	add("6 acknowledgement to first 200 ms", s.first.Sub(acked))
	add("7 write to first 200 ms", s.first.Sub(s.write))
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// suffixOf says whether a virtual host of the name TABLE/HOST is of a host.
func suffixOf(name, host string) bool {
	return len(name) > len(host) && name[len(name)-len(host):] == host
}

// events are when Ingresses were added, as a watch of the API saw it.
type events struct {
	mu      sync.Mutex
	waiting map[string]chan time.Time
}

// wait returns where the time of an Ingress will be.
func (e *events) wait(name string) <-chan time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(chan time.Time, 1)
	e.waiting[name] = out
	return out
}

// watchIngresses watches until ctx is done.
func (w *world) watchIngresses(ctx context.Context) (*events, error) {
	e := &events{waiting: map[string]chan time.Time{}}
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	const path = "/apis/networking.k8s.io/v1/ingresses"
	if err := w.client.Do(ctx, http.MethodGet, path+"?limit=1", "", nil, &list); err != nil {
		return nil, fmt.Errorf("list Ingresses: %w", err)
	}
	stream, err := w.client.Stream(ctx, path+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion)
	if err != nil {
		return nil, fmt.Errorf("watch Ingresses: %w", err)
	}
	go func() {
		defer stream.Close()
		for reader := bufio.NewReader(stream); ; {
			line, err := reader.ReadBytes('\n')
			now := time.Now()
			if err != nil {
				return
			}
			var event struct {
				Type   string
				Object struct{ Metadata struct{ Name string } }
			}
			if json.Unmarshal(line, &event) != nil || event.Type != "ADDED" {
				continue
			}
			e.mu.Lock()
			if waiting := e.waiting[event.Object.Metadata.Name]; waiting != nil {
				waiting <- now
				delete(e.waiting, event.Object.Metadata.Name)
			}
			e.mu.Unlock()
		}
	}()
	return e, nil
}
