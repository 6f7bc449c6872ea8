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
	results  *results
}

// benchmarks are all of them, in their order.
func (b *bench) benchmarks() []struct {
	name, about string
	run         func(context.Context) error
} {
	return []struct {
		name, about string
		run         func(context.Context) error
	}{
		{"full", "All Services are written for the first time.", b.full},
		{"update", "One endpoint of one Service is replaced, while all others stay.", b.update},
		{"traffic", "A client on the node asks Services, of which the first, the middle and the last lead to a server; subjects in turns.", b.traffic},
		{"alive", "Connections that are there while the agent is restarted, half of the times killed, and replaced by another version.", b.alive},
		{"churn", "250,000 endpoints, of which 500 are replaced each second, one by one.", b.churn},
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
	for _, o := range b.benchmarks() {
		if len(only) > 0 && !slices.Contains(only, o.name) {
			continue
		}
		if err := o.run(ctx); err != nil { // its folder stays, with the logs
			return fmt.Errorf("%s: %w", o.name, errors.Join(err, b.results.write()))
		}
	}
	return errors.Join(b.results.write(), os.RemoveAll(b.dir))
}

// done says whether a size need not be measured.
func (b *bench) done(bench string, services int) bool {
	return b.results.has(bench, services) && !b.again || b.size != 0 && b.size != services
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

// addAll appends the rows of some measurements, sorted.
func (b *bench) addAll(values map[measurement][]float64) error {
	keys := make([]measurement, 0, len(values))
	for m := range values {
		keys = append(keys, m)
	}
	slices.SortFunc(keys, func(x, y measurement) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	for _, m := range keys {
		if err := b.results.add(m, values[m]); err != nil {
			return err
		}
	}
	return nil
}
