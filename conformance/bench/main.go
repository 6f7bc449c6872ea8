package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A bench is what all benchmarks share.
type bench struct {
	programs
	dir      string
	subjects []string
	short    bool
	again    bool
	size     int    // the one size of full and traffic, 0 for all
	other    string // another version of the binary, for upgrades; empty for none
	limit    time.Duration
	results  *results
}

// A benchmark is one part of the whole. What it did not end within its limit is left out, and the next one begins.
type benchmark struct {
	name, about string
	limit       time.Duration
	run         func(context.Context) error
}

// benchmarks are all of them, in their order.
func (b *bench) benchmarks() []benchmark {
	return []benchmark{
		{"full", "All Services are written for the first time.", 13 * time.Minute, b.full},
		{"update", "One endpoint of one Service is replaced, or the port of one Service, while all others stay.", 7 * time.Minute, b.update},
		{"traffic", "A client on the node asks Services, of which the first, the middle and the last lead to a server; subjects in turns.", 6 * time.Minute, b.traffic},
		{"alive", "Connections that are there while the agent is restarted, half of the times killed, and replaced by another version.", 3 * time.Minute, b.alive},
		{"churn", "250,000 endpoints, of which 500 are replaced each second, one by one.", 4 * time.Minute, b.churn},
		{"churn-api", "The same with a real etcd and kube-apiserver, at 50 changes a second.", 5 * time.Minute, b.churnAPI},
	}
}

// about says what a benchmark is.
func about(name string) string {
	for _, o := range (&bench{}).benchmarks() {
		if o.name == name {
			return o.about
		}
	}
	return ""
}

func main() {
	home, _ := os.UserHomeDir()
	b := &bench{}
	var only, subjects, path, commit string
	flag.StringVar(&b.programs.hythe, "hythe", "bin/hythe", "the binary to measure")
	flag.StringVar(&b.kubeProxy, "kube-proxy", filepath.Join(home, ".cache/hythe/bin/kube-proxy"), "its rival; left out if it is not there")
	flag.StringVar(&b.other, "other", "", "another version of that binary, to upgrade to and from; without it there are no upgrades")
	flag.StringVar(&only, "only", "", "comma-separated names of benchmarks, all if empty")
	flag.StringVar(&subjects, "subjects", "", "comma-separated subjects, all if empty")
	flag.IntVar(&b.size, "services", 0, "measure full and traffic at this size alone; 0 is all sizes")
	flag.BoolVar(&b.short, "short", false, "small sizes and few repetitions: whether it works, in less than a minute; nothing is kept")
	flag.BoolVar(&b.again, "again", false, "measure also what this commit has rows of")
	flag.StringVar(&path, "results", "conformance/results/services-bench.jsonl", "where rows are appended")
	flag.DurationVar(&b.limit, "limit", 34*time.Minute, "how long all may take: what is not measured then is measured by the next run")
	flag.StringVar(&commit, "commit", "unknown", "the commit that is measured")
	echo := flag.Bool("echo", false, "be the server of traffic and alive, in place of all else")
	flag.Parse()
	if *echo {
		fmt.Fprintln(os.Stderr, "bench:", runEcho())
		os.Exit(1)
	}
	if err := b.main(split(only), split(subjects), path, commit); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func (b *bench) main(only, subjects []string, path, commit string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, b.limit, fmt.Errorf("all may take %v", b.limit))
	defer cancel()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "hythe-bench.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w: another run is at work, and has the same network namespaces", lock.Name(), err)
	}
	b.subjects = subjects
	if b.dir, err = os.MkdirTemp("", "hythe-bench-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if b.short {
		path = filepath.Join(b.dir, "short.jsonl")
	}
	if b.results, err = openResults(path, commit); err != nil {
		return err
	}
	var errs []error
	for _, o := range b.benchmarks() {
		if len(only) > 0 && !slices.Contains(only, o.name) || ctx.Err() != nil {
			continue
		}
		begin := time.Now()
		err := within(ctx, o.limit, o.run)
		fmt.Printf("%-9s took %v\n", o.name, time.Since(begin).Round(time.Second/10))
		if err != nil {
			err = fmt.Errorf("%s: %w", o.name, err)
			fmt.Fprintln(os.Stderr, "bench:", err) // now, and the next one goes on
		}
		errs = append(errs, err, b.results.write())
	}
	if err := errors.Join(append(errs, context.Cause(ctx))...); err != nil {
		return err // the folder stays, with the logs
	}
	return os.RemoveAll(b.dir)
}

// grace is how long a benchmark may take to clean up after its limit.
const grace = 40 * time.Second

// within runs f, and returns without it if it does not end soon after its limit.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was stopped after %v", limit))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if err != nil && ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return errors.Join(context.Cause(ctx), err)
	case <-time.After(grace):
		return errors.Join(context.Cause(ctx), errors.New("it did not even end then"))
	}
}

// done says whether a size need not be measured.
func (b *bench) done(bench string, services int) bool {
	return b.results.has(bench, services, "") && !b.again || b.size != 0 && b.size != services
}

// wants says whether a subject is to be measured, and can be.
func (b *bench) wants(who subject) bool {
	if _, err := os.Stat(b.kubeProxy); who != hythe && err != nil {
		return false
	}
	return len(b.subjects) == 0 || slices.Contains(b.subjects, string(who))
}

// rivals are the subjects that are measured with so many Services. kube-proxy takes many minutes for more than 10,000.
func (b *bench) rivals(services int) []subject {
	var out []subject
	for _, who := range []subject{hythe, nftables, iptables} {
		if b.wants(who) && (who == hythe || services <= 10_000) {
			out = append(out, who)
		}
	}
	return out
}

// addAll appends the rows of some measurements, sorted. With an error that ended them they are partial; it is in what is
// returned.
func (b *bench) addAll(values map[measurement][]float64, ended error) error {
	keys := make([]measurement, 0, len(values))
	for m := range values {
		keys = append(keys, m)
	}
	slices.SortFunc(keys, func(x, y measurement) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	for _, m := range keys {
		one := newRow(m, values[m])
		one.Partial = ended != nil
		if err := b.results.append(one); err != nil {
			return errors.Join(ended, err)
		}
	}
	return ended
}
