package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hythe.dev/hythe/internal/envoy"
)

// A subject is a proxy that serves the site.
type subject struct {
	name          string
	plain, secure int // ports
}

// A job is what h2load does with a subject.
type job struct {
	name string
	args []string
	tls  bool
	once int // connections with one request each; 0 to ask for a time
}

func jobs(short bool) []job {
	handshakes := 1000
	if short {
		handshakes = 100
	}
	return []job{
		{name: "HTTP/1.1", args: []string{"--h1", "-c", "32"}},
		{name: "HTTP/2 with TLS", args: []string{"-c", "8", "-m", "8"}, tls: true},
		{name: "new TLS connections", args: []string{"--h1"}, tls: true, once: handshakes},
	}
}

// throughput measures all subjects in turns, each round in another order.
func (b *bench) throughput(ctx context.Context) error {
	sizes, rounds, seconds := []int{1, 1000}, 9, 4
	if b.short {
		sizes, rounds, seconds = []int{20}, 1, 1
	}
	var errs []error
	for _, hosts := range sizes {
		if b.results.has("throughput", hosts) && !b.again {
			continue
		}
		errs = append(errs, b.compare(ctx, hosts, rounds, seconds))
	}
	return errors.Join(errs...)
}

func (b *bench) compare(ctx context.Context, hosts, rounds, seconds int) error {
	w, err := newWorld(ctx, b.programs, filepath.Join(b.dir, fmt.Sprintf("throughput-%d", hosts)), false)
	defer w.stop()
	if err != nil {
		return err
	}
	s, err := newSite(filepath.Join(w.dir, "site"), w.authority, hosts)
	if err != nil {
		return err
	}
	subjects, err := w.startSubjects(ctx, s)
	if err != nil {
		return err
	}
	values := map[measurement][]float64{}
	var failed error
	for round := 0; round < rounds && failed == nil && ctx.Err() == nil; round++ {
		for _, j := range jobs(b.short) {
			rates := map[string]float64{}
			for i := range subjects {
				o := subjects[(i+round)%len(subjects)]
				one, err := w.h2load(ctx, o, j, s.hosts[len(s.hosts)/2], seconds)
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s, %s: %w", o.name, j.name, err))
					continue
				}
				rates[o.name] = one.rate
				for what, v := range map[string]float64{"a second": one.rate, "p50 ms": one.p50, "p99 ms": one.p99} {
					m := measurement{"throughput", j.name + ": " + what, o.name, hosts}
					values[m] = append(values[m], v)
				}
			}
			for _, o := range subjects {
				if base := rates["static Envoy"]; base > 0 && rates[o.name] > 0 && o.name != "static Envoy" {
					m := measurement{"throughput", j.name + ": a second, ratio to static Envoy", o.name, hosts}
					values[m] = append(values[m], rates[o.name]/base)
				}
			}
		}
	}
	failed = errors.Join(failed, ctx.Err())
	var all []measurement
	for m := range values {
		all = append(all, m)
	}
	slices.SortFunc(all, func(x, y measurement) int { return strings.Compare(x.What+x.Subject, y.What+y.Subject) })
	errs := []error{failed}
	for _, m := range all {
		errs = append(errs, b.results.add(m, values[m], failed))
	}
	return errors.Join(errs...)
}

// startSubjects starts all that are installed.
func (w *world) startSubjects(ctx context.Context, s site) ([]subject, error) {
	if err := w.serveSite(ctx, s); err != nil {
		return nil, err
	}
	if err := w.startEnvoy(ctx, "envoy", w.socket(), readyPort); err != nil {
		return nil, err
	}
	const move = 1000
	var err error
	if w.spy, err = startSpy(filepath.Join(w.dir, "spy.sock"), w.socket(), withoutDisabled(move)); err != nil {
		return nil, err
	}
	if err := w.startEnvoy(ctx, "bare", w.spy.socket, readyPort+move); err != nil {
		return nil, err
	}
	subjects := []subject{{"hythe", httpPort, httpsPort}, {"hythe, no disabled filters", httpPort + move, httpsPort + move}}
	run := func(name, content string, concurrency int) error {
		path, err := s.write(name+".yaml", content)
		if err != nil {
			return err
		}
		// Each Envoy has as many workers, and none a page of its own.
		args := envoy.Args(envoy.Options{BootstrapFile: path, Concurrency: concurrency})
		p, err := start(w.dir, name, nil, append([]string{w.envoy}, args...)...)
		w.processes = append(w.processes, p)
		return err
	}
	if err := errors.Join(run("backend", s.backend(), 1), run("static", s.static(21080, 21443), 2)); err != nil {
		return nil, err
	}
	subjects = append(subjects, subject{"static Envoy", 21080, 21443})
	config, err := s.write("nginx.conf", s.nginx(22080, 22443))
	if err != nil {
		return nil, err
	}
	if subjects, err = w.startRival(subjects, subject{"nginx", 22080, 22443}, "-p", s.dir, "-c", config); err != nil {
		return nil, err
	}
	content, err := s.haproxy(23080, 23443)
	if err != nil {
		return nil, err
	}
	if config, err = s.write("haproxy.cfg", content); err != nil {
		return nil, err
	}
	if subjects, err = w.startRival(subjects, subject{"haproxy", 23080, 23443}, "-db", "-f", config); err != nil {
		return nil, err
	}
	return subjects, w.allServe(ctx, subjects, s)
}

// startRival starts a program, if it is installed.
func (w *world) startRival(subjects []subject, o subject, args ...string) ([]subject, error) {
	path := "/usr/sbin/" + o.name
	if _, err := os.Stat(path); err != nil {
		fmt.Printf("throughput: %s is not installed, and left out\n", o.name)
		return subjects, nil
	}
	p, err := start(w.dir, o.name, nil, append([]string{path}, args...)...)
	if err != nil {
		return nil, err
	}
	w.processes = append(w.processes, p)
	return append(subjects, o), nil
}

// serveSite writes the site's objects.
func (w *world) serveSite(ctx context.Context, s site) error {
	backend := service{name: "backend", number: 80, target: 8080}
	if err := w.apply(ctx, backend.object(), backend.slice([]endpoint{{backendAddress, false}})); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for n, host := range s.hosts {
		group.Go(func() error {
			secret := object("v1", "Secret", fmt.Sprintf("host-%d", n), map[string]any{"type": "kubernetes.io/tls", "data": map[string]any{
				"tls.crt": base64.StdEncoding.EncodeToString(s.certs[n].chain), "tls.key": base64.StdEncoding.EncodeToString(s.certs[n].key),
			}})
			i := ingress{name: secret.GetName(), host: host, service: "backend", port: "http", secret: secret.GetName(), annotations: map[string]any{"ssl-redirect": "false"}}
			return w.apply(ctx, secret, i.object())
		})
	}
	return group.Wait()
}

// allServe waits until each subject answers the hosts that are asked, on both ports.
func (w *world) allServe(ctx context.Context, subjects []subject, s site) error {
	end := time.Now().Add(60 * time.Second)
	for _, o := range subjects {
		for _, j := range jobs(true) {
			for {
				_, err := w.h2load(ctx, o, job{args: []string{"-c", "1", "--h1"}, tls: j.tls, once: 1}, s.hosts[len(s.hosts)/2], 0)
				if err == nil {
					break
				}
				if ctx.Err() != nil || time.Now().After(end) {
					return fmt.Errorf("wait for %s: %w", o.name, err)
				}
				time.Sleep(200 * time.Millisecond)
			}
		}
	}
	return nil
}

// An outcome is what h2load says.
type outcome struct{ rate, p50, p99 float64 }

var (
	finished  = regexp.MustCompile(`finished in ([0-9.]+)(ms|s), ([0-9.]+) req/s`)
	succeeded = regexp.MustCompile(`(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored`)
	codes     = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
)

// h2load runs the client, whose every request must be answered with 2xx.
func (w *world) h2load(ctx context.Context, o subject, j job, host string, seconds int) (outcome, error) {
	log := filepath.Join(w.dir, "h2load.log")
	_ = os.Remove(log)
	port, scheme := o.plain, "http"
	if j.tls {
		port, scheme = o.secure, "https"
	}
	args := append([]string{"-t", "1", "--log-file=" + log, "--connect-to=127.0.0.1:" + strconv.Itoa(port)}, j.args...)
	if j.once > 0 {
		args = append(args, "-n", strconv.Itoa(j.once), "-c", strconv.Itoa(j.once))
	} else {
		args = append(args, "-D", strconv.Itoa(seconds))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "h2load", append(args, fmt.Sprintf("%s://%s/", scheme, net.JoinHostPort(host, strconv.Itoa(port))))...).CombinedOutput()
	if err != nil {
		return outcome{}, fmt.Errorf("h2load: %w: %s", err, out)
	}
	result, asked, status := finished.FindSubmatch(out), succeeded.FindSubmatch(out), codes.FindSubmatch(out)
	if result == nil || asked == nil || status == nil || string(asked[3]) != "0" || string(asked[4]) != "0" || string(status[1]) == "0" ||
		string(status[2]) != "0" || string(status[3]) != "0" || string(status[4]) != "0" {
		return outcome{}, fmt.Errorf("h2load %v: %s", args, out)
	}
	rate, err := strconv.ParseFloat(string(result[3]), 64)
	if err != nil {
		return outcome{}, fmt.Errorf("h2load: %w", err)
	}
	times, err := readTimes(log)
	return outcome{rate, quantile(times, 0.5), quantile(times, 0.99)}, err
}

// readTimes reads h2load's log of requests: begin, status and time in microseconds. The times are sorted, in ms.
func readTimes(path string) ([]float64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read times of requests: %w", err)
	}
	var out []float64
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) < 3 {
			continue
		}
		us, err := strconv.ParseFloat(string(fields[2]), 64)
		if err != nil {
			return nil, fmt.Errorf("read times of requests: %w", err)
		}
		out = append(out, us/1000)
	}
	slices.Sort(out)
	return out, nil
}
