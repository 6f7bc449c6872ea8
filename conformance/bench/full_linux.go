package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/proxy"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// quiet is how long nftables must not have changed before it is looked at whether all is there.
	quiet = 400 * time.Millisecond
	// settle is how long the kernel may take the ruleset of a namespace apart before the next one is measured.
	settle = 5 * time.Second
	// fullLimit is the most that an agent may take for all.
	fullLimit = 3 * time.Minute
)

// whole says whether the kernel has all of w, as the subject would write it.
func (a *agent) whole(ctx context.Context, r ruleset, w world) (bool, error) {
	type want struct {
		family     byte
		table, set string
		n          int
	}
	var wants []want
	switch a.who {
	case hythe:
		wants = []want{{unix.NFPROTO_INET, "hythe", "frontends4", w.services}, {unix.NFPROTO_INET, "hythe", "endpoints4", w.services * w.endpoints}}
	case nftables:
		wants = []want{{unix.NFPROTO_IPV4, "kube-proxy", "service-ips", w.services}}
	case iptables:
		samples, _ := a.metrics(ctx, "kubeproxy_sync_full_proxy_rules_duration_seconds_count") // an agent that is busy is asked again
		var lines []byte
		err := topology.Do(a.name, func() (err error) {
			lines, err = exec.CommandContext(ctx, "iptables-save", "-t", "nat").Output()
			return err
		})
		return err == nil && samples[`{ip_family="IPv4"}`] > 0 && strings.Count(string(lines), "\n-A KUBE-SERVICES -d ") >= w.services, nil
	}
	for _, o := range wants {
		n, err := r.count(o.family, o.table, o.set)
		if err != nil || n != o.n {
			return false, err
		}
	}
	return true, nil
}

// wait waits until the kernel has all of w, and returns when it got the last of it: the zero time if it had all before.
func (a *agent) wait(ctx context.Context, w world) (last time.Time, err error) {
	r, err := openRuleset(a.name)
	if err != nil {
		return last, err
	}
	defer r.close()
	before, err := r.generation()
	if err != nil {
		return last, err
	}
	start, checked := time.Now(), time.Time{}
	for time.Since(start) < fullLimit && ctx.Err() == nil {
		if err := a.ended(); err != nil {
			return last, err
		}
		now, err := r.generation()
		if err != nil {
			return last, err
		}
		if now != before {
			before, last = now, time.Now()
		}
		if time.Since(last) > quiet && time.Since(checked) > quiet {
			checked = time.Now()
			if is, err := a.whole(ctx, r, w); is || err != nil {
				return last, err
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	return last, errors.Join(ctx.Err(), fmt.Errorf("%s did not write all of %d Services in %v", a.who, w.services, time.Since(start).Round(time.Second)))
}

// A fullRun is what one start of an agent showed.
type fullRun struct {
	start, sync, memory float64 // seconds from exec, seconds of the work alone, MB
	busy                float64 // seconds of processors until then
	again               float64 // transactions of a second start, which has nothing to write
}

// runFull starts a subject in a new namespace, waits until it has written all, and starts it once more.
func runFull(ctx context.Context, b *bench, who subject, w world) (out fullRun, err error) {
	server, err := w.serve()
	if err != nil {
		return out, err
	}
	s, err := newSpace("full", b.dir, server)
	if err != nil {
		return out, err
	}
	defer func() {
		err = errors.Join(err, s.close())
		if !b.short {
			time.Sleep(settle)
		}
	}()
	begin := time.Now()
	a, err := s.start(b.programs, who)
	if err != nil {
		return out, err
	}
	last, err := a.wait(ctx, w)
	if err == nil {
		out.start = last.Sub(begin).Seconds()
		_, out.memory, err = a.memory()
	}
	if err == nil {
		out.busy, err = a.cpu()
	}
	if err == nil {
		out.sync, err = a.syncSeconds(ctx)
	}
	if err = errors.Join(err, a.stop(syscall.SIGTERM)); err != nil || who != hythe {
		return out, err
	}
	out.again, err = s.again(ctx, b.programs)
	return out, err
}

// syncSeconds is what the agent says its first whole write took.
func (a *agent) syncSeconds(ctx context.Context) (float64, error) {
	name := `kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"}`
	if a.who == hythe {
		name = "hythe_nft_set_seconds_sum"
	}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		samples, err := a.metrics(ctx, name)
		if err != nil {
			return 0, fmt.Errorf("read metrics of %s: %w", a.who, err)
		}
		// It counts when it is done, which is after the last transaction.
		if samples[""] > 0 || time.Since(begin) > time.Minute {
			return samples[""], nil
		}
	}
}

// again starts Hythe once more and returns how many transactions it made before it was ready, and in the second after.
func (s *space) again(ctx context.Context, p programs) (n float64, err error) {
	r, err := openRuleset(s.name)
	if err != nil {
		return 0, err
	}
	defer r.close()
	before, err := r.generation()
	if err != nil {
		return 0, err
	}
	a, err := s.start(p, hythe)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, a.stop(syscall.SIGTERM)) }()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := a.get(ctx, "http://127.0.0.1:9903/readyz"); err == nil {
			break
		}
		if err := errors.Join(a.ended(), ctx.Err()); err != nil {
			return 0, err
		}
		if time.Since(start) > fullLimit {
			return 0, errors.New("hythe is not ready after a second start")
		}
	}
	time.Sleep(time.Second)
	after, err := r.generation()
	return float64(after - before), err
}

// snapshot is the world as a Snapshot.
func (w world) snapshot() *model.Snapshot {
	services, endpoints := map[model.Key]*corev1.Service{}, map[model.Key]*model.ServiceEndpoints{}
	s := &model.Snapshot{Nodes: map[string]*model.Node{
		nodeName:  {Name: nodeName, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}},
		otherNode: {Name: otherNode, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.12")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
	}}
	for i := range w.services {
		svc := w.service(i)
		k := model.Key{Namespace: svc.Namespace, Name: svc.Name}
		services[k], endpoints[k] = svc, endpointsOf(w.addresses(i))
	}
	s.Services, s.Endpoints = model.ObjectsOf(services), model.ObjectsOf(endpoints)
	return s
}

func endpointsOf(addresses []netip.Addr) *model.ServiceEndpoints {
	var list []model.Endpoint
	for _, a := range addresses {
		list = append(list, model.Endpoint{AddrPort: netip.AddrPortFrom(a, podPort), Node: otherNode, Ready: true, Serving: true})
	}
	return &model.ServiceEndpoints{Ports: []model.PortEndpoints{{Name: "http", Protocol: corev1.ProtocolTCP, Endpoints: list}}}
}

// newTable opens the Service datapath of a new namespace; end takes it away.
func newTable() (table *nft.Table, end func() error, err error) {
	const name = prefix + "set"
	if err := errors.Join(topology.DeleteNamespace(name), topology.CreateNamespace(name)); err != nil {
		return nil, nil, err
	}
	fd, err := netns.GetFromName(name)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open namespace %s: %w", name, err), topology.DeleteNamespace(name))
	}
	defer fd.Close()
	if table, err = nft.New(slog.New(slog.DiscardHandler), nil, nft.InNetNS(int(fd))); err != nil {
		return nil, nil, errors.Join(err, topology.DeleteNamespace(name))
	}
	return table, func() error { return errors.Join(table.Close(), topology.DeleteNamespace(name)) }, nil
}

// buildSet measures Build and Set alone, in this process: from objects in memory to the kernel.
func (w world) buildSet(ctx context.Context) (seconds float64, err error) {
	s := w.snapshot()
	table, end, err := newTable()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end()) }()
	runtime.GC() // of what the world left
	start := time.Now()
	state, _ := proxy.Build(s, nodeName, proxy.DefaultSettings())
	if err := table.Set(ctx, state); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds(), nil
}

// full is the benchmark of the first write of everything.
func (b *bench) full(ctx context.Context) error {
	sizes := []int{1000, 3000, 10_000, 30_000, 100_000}
	rounds := map[int]int{1000: 5, 3000: 5, 10_000: 3, 30_000: 3, 100_000: 2}
	if b.short {
		sizes, rounds = []int{300}, map[int]int{300: 2}
	}
	var errs []error
	for _, n := range sizes {
		if b.done("full", n) || ctx.Err() != nil {
			continue
		}
		errs = append(errs, b.fullOf(ctx, world{services: n, endpoints: 3}, rounds[n]))
	}
	return errors.Join(append(errs, ctx.Err(), b.exponent())...)
}

func (b *bench) fullOf(ctx context.Context, w world, rounds int) error {
	values := map[measurement][]float64{}
	note := func(who subject, what string, value float64) {
		m := measurement{"full", what, who, w.services, w.endpoints}
		values[m] = append(values[m], value)
	}
	for round := range rounds {
		var own fullRun // Hythe's of this round, which is the first
		for _, who := range b.rivals(w.services) {
			if who == iptables && (round > 0 || w.services > 1000) {
				continue // it says little, and lasts
			}
			one, err := runFull(ctx, b, who, w)
			if err == nil && who == hythe {
				one.sync, err = w.buildSet(ctx)
			}
			if err != nil {
				return b.addAll(values, err)
			}
			note(who, "from exec to all in the kernel, s", one.start)
			note(who, "from objects to kernel, s", one.sync)
			note(who, "memory at most, MB", one.memory)
			note(who, "processor time of that, s", one.busy)
			if who == hythe {
				own = one
				note(who, "transactions of a second start", one.again)
				continue
			}
			if own.sync > 0 {
				note(who, "from exec to all in the kernel, times hythe's", one.start/own.start)
				note(who, "from objects to kernel, times hythe's", one.sync/own.sync)
				note(who, "processor time of that, times hythe's", one.busy/own.busy)
			}
		}
	}
	return b.addAll(values, nil)
}

// exponent fits time = c * Services ^ e to the quick runs of Hythe.
func (b *bench) exponent() error {
	for _, what := range []string{"from exec to all in the kernel, s", "from objects to kernel, s"} {
		var xs, ys []float64
		sizes := map[int]float64{}
		for _, r := range b.results.rows {
			if r.Bench == "full" && r.What == what && r.Subject == hythe && r.Services >= 1000 && r.Commit == b.results.commit {
				sizes[r.Services] = r.P10 // what else runs only adds
			}
		}
		for n, t := range sizes {
			xs, ys = append(xs, math.Log(float64(n))), append(ys, math.Log(t))
		}
		if len(xs) < 5 { // from 1,000 to 100,000, or it says nothing
			return nil
		}
		if err := b.results.add(measurement{"full", "exponent of " + strings.TrimSuffix(what, ", s"), hythe, 0, 3}, []float64{slope(xs, ys)}); err != nil {
			return err
		}
	}
	return nil
}

// slope is that of the line of least squares.
func slope(xs, ys []float64) float64 {
	var mx, my, up, down float64
	for i := range xs {
		mx, my = mx+xs[i]/float64(len(xs)), my+ys[i]/float64(len(ys))
	}
	for i := range xs {
		up, down = up+(xs[i]-mx)*(ys[i]-my), down+(xs[i]-mx)*(xs[i]-mx)
	}
	return up / down
}
