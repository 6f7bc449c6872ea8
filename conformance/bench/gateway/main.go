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

	"hythe.dev/hythe/internal/envoy/binary"
)

// A bench is what all benchmarks share.
type bench struct {
	programs
	dir     string
	short   bool
	again   bool
	results *results
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
		{"lost", "Ten changes a second under steady load: requests that got no 200, and what new hosts answered before.", 25 * time.Minute, b.lost},
		{"propagation", "From the write of a new host's Ingress to its first 200, in parts, while nothing else changes and under churn.", 20 * time.Minute, b.propagation},
		{"throughput", "Requests a second and handshakes a second, beside others on the same cores, in turns; ratios are of neighbours in time.", 30 * time.Minute, b.throughput},
		{"scale", "TLS hosts, each with a certificate of its own: memory, first configuration, one host more, handshakes.", 30 * time.Minute, b.scale},
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
	b := &bench{}
	var only, path, commit string
	flag.StringVar(&b.hythe, "hythe", "bin/hythe", "the binary to measure")
	flag.StringVar(&only, "only", "", "comma-separated names of benchmarks, all if empty")
	flag.BoolVar(&b.short, "short", false, "small sizes and few repetitions: whether it works, in about a minute; nothing is kept")
	flag.BoolVar(&b.again, "again", false, "measure also what this commit has rows of")
	flag.StringVar(&path, "results", "conformance/results/gateway-bench.jsonl", "where rows are appended")
	flag.StringVar(&commit, "commit", "unknown", "the commit that is measured")
	flag.Parse()
	done, err := ownNamespace()
	if err == nil && !done {
		err = b.main(strings.FieldsFunc(only, func(r rune) bool { return r == ',' }), path, commit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) main(only []string, path, commit string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, name := range only {
		if about(name) == "" {
			return fmt.Errorf("there is no benchmark %q", name)
		}
	}
	if b.envoy, err = binary.Find(); err != nil {
		return err
	}
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
		fmt.Printf("%s took %v\n", o.name, time.Since(begin).Round(time.Second/10))
		if err != nil {
			err = fmt.Errorf("%s: %w", o.name, err)
		}
		errs = append(errs, err, b.results.write())
	}
	if err := errors.Join(append(errs, context.Cause(ctx))...); err != nil {
		return fmt.Errorf("%w\nlogs are in %s", err, b.dir)
	}
	return os.RemoveAll(b.dir)
}

// within runs f, whose context ends at its limit.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was stopped after %v", limit))
	defer stop()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return err
}
