package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
	"hythe.dev/hythe/internal/atomicfile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	dir, results, logs string
	set, focus, skip   string
	again, table       bool
	limit              time.Duration
	beside             int
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "e2e", Short: "Run Kubernetes' own tests against the cluster of the rig", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "/var/tmp/hythe-cluster", "folder of the running cluster")
	f.StringVar(&o.results, "results", "conformance/results", "folder for e2e.jsonl and the tables")
	f.StringVar(&o.logs, "logs", "/var/tmp/hythe-e2e", "folder for what the tests print")
	f.StringVar(&o.set, "set", "", "conformance, network, loadbalancer or dualstack, see sets.txt; without focus and set it is conformance")
	f.StringVar(&o.focus, "focus", "", "regular expression for names of tests; without a set, of all there are")
	f.StringVar(&o.skip, "skip", "", "regular expression for names of tests that are left out")
	f.BoolVar(&o.again, "again", false, "run also what failed before")
	f.BoolVar(&o.table, "table", false, "run nothing, only write the table")
	f.DurationVar(&o.limit, "limit", 40*time.Minute, "longest time for one test")
	f.IntVar(&o.beside, "beside", 1, "how many tests run beside each other, but for those that must be alone")
	return cmd
}

// open reads which cluster is running.
func open(dir string) (cluster.Cluster, error) {
	var c cluster.Cluster
	raw, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		return c, fmt.Errorf("find the cluster (make cluster starts it): %w", err)
	}
	return c, nil
}

func (o options) run(ctx context.Context, out io.Writer) error {
	if err := os.MkdirAll(o.results, 0o755); err != nil {
		return fmt.Errorf("make the folder for results: %w", err)
	}
	if o.table {
		return o.writeTable()
	}
	c, err := open(o.dir)
	if err != nil {
		return err
	}
	if o.wanted() == setDualStack && !c.DualStack {
		return errors.New("the set dualstack needs nodes of both families: make cluster-down, then make cluster DUAL=1")
	}
	t, err := o.tester(ctx, c)
	if err != nil {
		return err
	}
	rules, err := parseRules(setsText)
	if err != nil {
		return err
	}
	names, err := o.choose(ctx, t, rules)
	if err != nil {
		return err
	}
	results, err := readResults(o.file())
	if err != nil {
		return err
	}
	todo := missing(names, results, t.run, o.again)
	fmt.Fprintf(out, "%d tests, %d to run on flavour %s\n", len(names), len(todo), t.run.Flavour)
	if err := o.each(ctx, out, t, rules, todo); err != nil {
		return err
	}
	return o.summary(out, names, t.run)
}

func (o options) file() string { return filepath.Join(o.results, "e2e.jsonl") }

// choose lists the tests of the set that focus and skip leave.
func (o options) choose(ctx context.Context, t *tester, rules rules) ([]string, error) {
	focus, err := regexp.Compile(o.focus)
	if err != nil {
		return nil, fmt.Errorf("read focus: %w", err)
	}
	var skip *regexp.Regexp
	if o.skip != "" {
		if skip, err = regexp.Compile(o.skip); err != nil {
			return nil, fmt.Errorf("read skip: %w", err)
		}
	}
	list, err := t.list(ctx)
	if err != nil {
		return nil, err
	}
	names := parseList(list, focus, skip)
	if set := o.wanted(); set != "" {
		if err := rules.check(parseList(list, anyName, nil)); err != nil {
			return nil, err
		}
		names = rules.of(set, names)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no test of set %q has a name like %q", o.wanted(), o.focus)
	}
	return names, nil
}

var anyName = regexp.MustCompile("")

// wanted is the set to run, empty for all tests.
func (o options) wanted() string {
	if o.set == "" && o.focus == "" {
		return setConformance
	}
	return o.set
}

// each runs tests, some beside each other and then those that must be alone, and keeps each result at once. It stops when
// the tests cannot even be prepared.
func (o options) each(ctx context.Context, out io.Writer, t *tester, rules rules, todo []string) error {
	var together, single []string
	for _, name := range todo {
		if rules.alone(name) {
			single = append(single, name)
		} else {
			together = append(together, name)
		}
	}
	k := &keeper{options: o, out: out, tester: t, all: len(todo)}
	if err := k.each(ctx, together, max(o.beside, 1)); err != nil {
		return err
	}
	return k.each(ctx, single, 1)
}

// A keeper runs tests and keeps their results, one at a time.
type keeper struct {
	options
	out    io.Writer
	tester *tester
	all    int

	mu   sync.Mutex
	done int
}

func (k *keeper) each(ctx context.Context, names []string, beside int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(beside)
	for _, name := range names {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := k.tester.test(ctx, name)
			if err != nil {
				return fmt.Errorf("run %q: %w", name, err)
			}
			return k.keep(r)
		})
	}
	return group.Wait()
}

func (k *keeper) keep(r result) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := appendResult(k.file(), r); err != nil {
		return fmt.Errorf("keep the result: %w", err)
	}
	if err := k.writeTable(); err != nil {
		return err
	}
	k.done++
	fmt.Fprintf(k.out, "%3d/%d %-7s %4d s  %s\n", k.done, k.all, r.Result, r.Seconds, r.Test)
	if r.Result == failed {
		fmt.Fprintf(k.out, "        %s (log: %s)\n", r.Message, k.tester.log(r.Test))
	}
	return nil
}

// writeTable writes a table for each set: conformance.md, network.md, loadbalancer.md, dualstack.md.
func (o options) writeTable() error {
	results, err := readResults(o.file())
	if err != nil {
		return err
	}
	rules, err := parseRules(setsText)
	if err != nil {
		return err
	}
	for _, set := range setNames() {
		path := filepath.Join(o.results, set+".md")
		text := table(results, rules, set, cluster.Hythe, cluster.Peer)
		if err := atomicfile.Write(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	return nil
}

// summary counts the results of this run; failures make an error.
func (o options) summary(out io.Writer, names []string, r run) error {
	results, err := readResults(o.file())
	if err != nil {
		return err
	}
	count := make(map[string]int)
	newest := latest(results, r.covers)
	for _, name := range names {
		count[newest[name].Result]++
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", count[passed], count[failed], count[skipped])
	if count[failed] > 0 {
		return fmt.Errorf("%d of %d tests failed", count[failed], len(names))
	}
	return nil
}

// tester is how to run tests on a cluster.
func (o options) tester(ctx context.Context, c cluster.Cluster) (*tester, error) {
	version, err := os.ReadFile(c.Binary("e2e.test.version"))
	if err != nil {
		return nil, fmt.Errorf("find e2e.test (scripts/kubernetes.sh build e2e.test makes it): %w", err)
	}
	t := &tester{
		program: c.Binary("e2e.test"), kubectl: c.Binary("kubectl"), kubeconfig: c.Kubeconfig(), logs: filepath.Join(o.logs, c.Flavour), limit: o.limit,
		registries: cluster.TestRegistries(),
		run:        run{Flavour: c.Flavour, Kubernetes: strings.TrimSpace(string(version))},
		start:      func(cmd *exec.Cmd) error { return host.Run(cluster.Namespace(cluster.Client), cmd) },
	}
	if c.WithHythe() {
		t.Commit, err = installed(ctx, c)
	}
	return t, err
}

// installed asks which version of Hythe runs in the cluster: the tag of its image.
func installed(ctx context.Context, c cluster.Cluster) (string, error) {
	cmd := exec.CommandContext(ctx, c.Binary("kubectl"), "--kubeconfig", c.Kubeconfig(), "--request-timeout", "20s",
		"--namespace", "hythe-system", "get", "daemonset", "hythe-node", "--output", "jsonpath={.spec.template.spec.containers[0].image}")
	out, err := cmd.Output()
	if err != nil {
		var text []byte
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			text = exit.Stderr
		}
		return "", fmt.Errorf("ask for Hythe's version in the cluster: %w: %s", err, firstLine(string(text)))
	}
	image := strings.TrimSpace(string(out))
	return image[strings.LastIndex(image, ":")+1:], nil
}
