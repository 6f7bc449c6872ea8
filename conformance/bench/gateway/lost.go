package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// How long pods serve after they begin to terminate, and how many changes there are in a second.
const (
	lastServed       = 5 * time.Second
	changesPerSecond = 10
)

// An app is one host, for one protocol, with two Services of two pods each.
type app struct {
	name     string
	grpc     bool
	ingress  ingress
	services [2]service
	pods     [2][]*pod
	leaving  [2][]*pod // that are terminating
}

// A churn makes changes, one each tenth of a second.
type churn struct {
	w    *world
	load *load
	apps []*app
	// fault takes what goes wrong with a change itself.
	fault func(error)

	slices sync.Mutex // held while an EndpointSlice is written: the newest one must be the last

	mu      sync.Mutex
	log     []change
	later   sync.WaitGroup
	gaps    []error
	redone  int       // requests to new TLS hosts that were told 421 on a connection older than the host
	first   []float64 // ms from the write of a new host's Ingress to its first 200
	counted map[string]int
}

// A change is what was done at a time.
type change struct {
	at   time.Time
	what string
}

// newApp starts the pods of an app and writes its objects.
func (w *world) newApp(ctx context.Context, name string, encrypted, isGRPC bool) (*app, error) {
	a := &app{name: name, grpc: isGRPC, ingress: ingress{name: name, host: name + ".test", service: name + "-a", port: "http", annotations: map[string]any{}}}
	if isGRPC {
		a.ingress.annotations["backend-protocol"] = "GRPC"
	}
	var objects []*unstructured.Unstructured
	if encrypted {
		a.ingress.secret = name
		secret, err := w.secret(name, a.ingress.host)
		if err != nil {
			return nil, err
		}
		objects = append(objects, secret)
	}
	for i, side := range []string{"a", "b"} {
		a.services[i] = service{name: name + "-" + side, number: 80, target: 8080}
		for range 2 {
			p, err := startPod(isGRPC)
			if err != nil {
				return nil, err
			}
			a.pods[i] = append(a.pods[i], p)
		}
		objects = append(objects, a.services[i].object(), a.slice(i))
	}
	return a, w.apply(ctx, append(objects, a.ingress.object())...)
}

// slice is the EndpointSlice of one of its Services.
func (a *app) slice(i int) *unstructured.Unstructured {
	var endpoints []endpoint
	for _, p := range a.pods[i] {
		endpoints = append(endpoints, endpoint{p.address, false})
	}
	for _, p := range a.leaving[i] {
		endpoints = append(endpoints, endpoint{p.address, true})
	}
	return a.services[i].slice(endpoints)
}

// kinds are the changes, which take turns. Each returns what it did.
func (c *churn) kinds() []func(context.Context, *app, int) (string, error) {
	return []func(context.Context, *app, int) (string, error){
		c.backend, c.pods, c.header, c.newHost, c.port, c.certificate, c.pods, c.target, c.timeout, c.newTLSHost, c.number,
	}
}

// run makes changes until ctx is done, then waits for those that go on.
func (c *churn) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / changesPerSecond)
	defer tick.Stop()
	defer c.later.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		kinds := c.kinds()
		c.change(kinds[n%len(kinds)], c.apps[n/len(kinds)%len(c.apps)], n)
	}
}

// change makes one change. It is not cut by the end of the churn.
func (c *churn) change(do func(context.Context, *app, int) (string, error), a *app, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	begin := time.Now()
	what, err := do(ctx, a, n)
	if err != nil {
		c.fault(fmt.Errorf("change of %s: %w", a.name, err))
	}
	c.did(begin, a.name+": "+what)
}

func (c *churn) did(at time.Time, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, change{at, what})
	_, kind, _ := strings.Cut(what, ": ")
	kind, _, _ = strings.Cut(kind, " to ")
	c.counted[kind]++
}

// backend switches the backend Service.
func (c *churn) backend(ctx context.Context, a *app, _ int) (string, error) {
	next := a.services[0].name
	if a.ingress.service == next {
		next = a.services[1].name
	}
	a.ingress.service = next
	return "backend to " + next, c.w.apply(ctx, a.ingress.object())
}

// port switches the Ingress to another port of the Service.
func (c *churn) port(ctx context.Context, a *app, _ int) (string, error) {
	if a.ingress.port == "http" {
		a.ingress.port = "alt"
	} else {
		a.ingress.port = "http"
	}
	return "port to " + a.ingress.port, c.w.apply(ctx, a.ingress.object())
}

// number changes the number of a Service's port, to which the Ingress refers by name.
func (c *churn) number(ctx context.Context, a *app, n int) (string, error) {
	s := &a.services[n%2]
	s.number = 80 + 90 - s.number
	return fmt.Sprintf("port's number to %d", s.number), c.w.apply(ctx, s.object())
}

// target changes the targetPort of a Service: first the Service, then its EndpointSlice, as Kubernetes does.
func (c *churn) target(ctx context.Context, a *app, n int) (string, error) {
	i := n % 2
	target := 8080 + 8082 - a.services[i].target
	return fmt.Sprintf("targetPort to %d", target), c.writeSlice(ctx, a, i, func() { a.services[i].target = target }, true)
}

// header adds or changes a header of the answers.
func (c *churn) header(ctx context.Context, a *app, n int) (string, error) {
	a.ingress.annotations["enable-cors"] = "true"
	a.ingress.annotations["cors-expose-headers"] = fmt.Sprintf("X-Change-%d", n)
	if n%3 == 0 {
		delete(a.ingress.annotations, "enable-cors")
	}
	return fmt.Sprintf("header to %d", n), c.w.apply(ctx, a.ingress.object())
}

// timeout changes a setting of the backend, which makes another cluster of it.
func (c *churn) timeout(ctx context.Context, a *app, n int) (string, error) {
	a.ingress.annotations["proxy-connect-timeout"] = fmt.Sprint(5 + n%7)
	return fmt.Sprintf("timeout to %d", 5+n%7), c.w.apply(ctx, a.ingress.object())
}

// certificate rotates the host's certificate; of a host without one, another header is changed.
func (c *churn) certificate(ctx context.Context, a *app, n int) (string, error) {
	if a.ingress.secret == "" {
		return c.header(ctx, a, n)
	}
	secret, err := c.w.secret(a.ingress.secret, a.ingress.host)
	if err != nil {
		return "", err
	}
	return "certificate", c.w.apply(ctx, secret)
}

// pods replaces a pod. The new one is ready before the old one begins to terminate, which serves for five seconds more.
func (c *churn) pods(ctx context.Context, a *app, n int) (string, error) {
	i := n % 2
	p, err := startPod(a.grpc)
	if err != nil {
		return "", err
	}
	old := a.pods[i][0]
	err = c.writeSlice(ctx, a, i, func() {
		a.pods[i] = append(a.pods[i][1:], p)
		a.leaving[i] = append(a.leaving[i], old)
	}, false)
	c.later.Go(func() {
		time.Sleep(lastServed)
		begin := time.Now()
		err := old.stop()
		gone := c.writeSlice(context.Background(), a, i, func() {
			a.leaving[i] = slices.DeleteFunc(a.leaving[i], func(p *pod) bool { return p == old })
		}, false)
		if err := errors.Join(err, gone); err != nil {
			c.fault(err)
		}
		c.did(begin, a.name+": pod ended to "+old.address)
	})
	return "pods to " + p.address, err
}

// writeSlice changes what the EndpointSlice of a Service says, and writes it, after the Service if that changes too.
func (c *churn) writeSlice(ctx context.Context, a *app, i int, change func(), service bool) error {
	c.slices.Lock()
	defer c.slices.Unlock()
	change()
	objects := []*unstructured.Unstructured{a.slice(i)}
	if service {
		objects = []*unstructured.Unstructured{a.services[i].object(), a.slice(i)}
	}
	return c.w.apply(ctx, objects...)
}

// newHost adds a host of plain HTTP, asks it until it answers and takes it away a while later.
func (c *churn) newHost(ctx context.Context, _ *app, n int) (string, error) {
	i := ingress{name: fmt.Sprintf("new-%d", n), host: fmt.Sprintf("new-%d.test", n), service: c.apps[0].services[n%2].name, port: "http"}
	return "new host", c.watchNew(ctx, n, i, nil, func(ctx context.Context) (time.Time, error) { return probe(ctx, i.host, time.Second) })
}

// newTLSHost adds a host with a certificate of its own.
func (c *churn) newTLSHost(ctx context.Context, _ *app, n int) (string, error) {
	i := ingress{name: fmt.Sprintf("new-%d", n), host: fmt.Sprintf("new-%d.test", n), service: c.apps[0].services[n%2].name, port: "http", secret: fmt.Sprintf("new-%d", n)}
	secret, err := c.w.secret(i.secret, i.host)
	if err != nil {
		return "", err
	}
	return "new TLS host", c.watchNew(ctx, n, i, secret, func(ctx context.Context) (time.Time, error) {
		redone, first, err := c.load.probeTLS(ctx, i.host, time.Second)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.redone += redone
		return first, err
	})
}

// watchNew writes an Ingress whose host is asked meanwhile, and deletes it after that.
func (c *churn) watchNew(ctx context.Context, n int, i ingress, secret *unstructured.Unstructured, ask func(context.Context) (time.Time, error)) error {
	ready, written := make(chan struct{}), time.Time{}
	c.later.Go(func() {
		ctx := context.Background()
		time.AfterFunc(10*time.Millisecond, func() { close(ready) }) // it has asked before the host is there
		first, err := ask(ctx)
		c.mu.Lock()
		if err != nil {
			c.gaps = append(c.gaps, err)
		} else {
			c.first = append(c.first, float64(first.Sub(written).Microseconds())/1000)
		}
		c.mu.Unlock()
		objects := []*unstructured.Unstructured{i.object()}
		if secret != nil {
			objects = append(objects, secret)
		}
		c.did(time.Now(), fmt.Sprintf("host: removal to new-%d", n))
		if err := c.w.remove(ctx, objects...); err != nil {
			c.fault(err)
		}
	})
	<-ready
	if secret != nil {
		if err := c.w.apply(ctx, secret); err != nil {
			return err
		}
	}
	c.mu.Lock()
	written = time.Now()
	c.mu.Unlock()
	return c.w.apply(ctx, i.object())
}

// before are the changes in the second before a time.
func (c *churn) before(at time.Time) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, o := range c.log {
		if d := at.Sub(o.at); d >= -50*time.Millisecond && d < 700*time.Millisecond {
			out = append(out, fmt.Sprintf("%s %dms before", o.what, d.Milliseconds()))
		}
	}
	return out
}

// lost counts requests that get no 200 while everything changes.
func (b *bench) lost(ctx context.Context) error {
	size, perSecond := 1_000_000, 2200.0
	if b.short {
		size, perSecond = 6_000, 400
	}
	if b.results.has("lost", size) && !b.again {
		return nil
	}
	w, err := newWorld(ctx, b.programs, filepath.Join(b.dir, "lost"), true)
	defer w.stop()
	if err != nil {
		return err
	}
	var faults []error
	var mu sync.Mutex
	c := &churn{w: w, counted: map[string]int{}, fault: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, err)
	}}
	for _, name := range []string{"h1", "h1tls", "h2", "grpc"} {
		a, err := w.newApp(ctx, name, name != "h1", name == "grpc")
		if err != nil {
			return err
		}
		c.apps = append(c.apps, a)
	}
	if err := w.startEnvoy(ctx, "envoy", w.socket(), readyPort); err != nil {
		return err
	}
	c.load = &load{authority: w.authority, limit: rate.NewLimiter(rate.Limit(perSecond), 20), requests: map[string]int{}, closed: map[string]int{}}
	if err := c.settled(ctx); err != nil {
		return err
	}
	c.both(ctx, size)
	err = b.tellLost(c, size, context.Cause(ctx))
	return errors.Join(append(faults, err)...)
}

// settled waits until each app answers once; what was before is not counted.
func (c *churn) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, a := range c.apps {
		for {
			cl, err := c.connect(a)(ctx)
			if err == nil {
				_, err = cl.ask(ctx, false, "settle")
				cl.close()
			}
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("wait for %s: %w", a.name, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// connect is how clients of an app do.
func (c *churn) connect(a *app) func(context.Context) (client, error) {
	switch {
	case a.grpc:
		return c.load.grpc(a.ingress.host)
	case a.name == "h2":
		return c.load.http2(a.ingress.host)
	}
	return c.load.http1(a.ingress.host, a.ingress.secret != "")
}

// both runs load and changes until there were so many requests. Of four clients of an app one connects anew every 50 requests.
func (c *churn) both(ctx context.Context, size int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	group.Go(func() { c.run(ctx) })
	for _, a := range c.apps {
		for i := range 4 {
			fresh := 0
			if i == 0 {
				fresh = 50
			}
			group.Go(func() { c.load.run(ctx, a.name, fresh, c.connect(a)) })
		}
	}
	for c.load.total() < size && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	group.Wait()
}

func (l *load) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := 0
	for _, n := range l.requests {
		sum += n
	}
	return sum
}

// tellLost writes the rows, and what is known of each loss. A loss is an error.
func (b *bench) tellLost(c *churn, size int, ended error) error {
	errs := []error{ended}
	add := func(what string, values ...float64) {
		errs = append(errs, b.results.add(measurement{"lost", what, "hythe", size}, values, ended))
	}
	add("requests", float64(c.load.total()))
	add("lost requests", float64(len(c.load.lost)))
	add("request ms", c.load.times...)
	add("new host: write to first 200 ms", c.first...)
	add("new hosts that answered anything but 404 before 200", float64(len(c.gaps)))
	add("421 to new TLS hosts, on connections older than the host", float64(c.redone))
	for _, what := range slices.Sorted(maps.Keys(c.counted)) {
		fmt.Printf("lost: change %-20s %d times\n", what, c.counted[what])
	}
	fmt.Println("lost: requests", c.load.requests, "connections that Envoy ended in good order", c.load.closed)
	for i, o := range c.load.lost {
		if i < 20 {
			fmt.Printf("lost: %s %s %s: %s\n  after %v\n  log: %q\n", o.at.Format("15:04:05.000"), o.what, o.id, o.reason, c.before(o.at), c.w.logged(o.id))
		}
	}
	if n := len(c.load.lost); n > 0 {
		errs = append(errs, fmt.Errorf("%d of %d requests were lost", n, c.load.total()))
	}
	for i, gap := range c.gaps {
		if i < 20 {
			errs = append(errs, gap)
		}
	}
	return errors.Join(errs...)
}
