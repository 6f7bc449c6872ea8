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
	"time"

	"github.com/spf13/cobra"
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
	focus, skip        string
	again, table       bool
	limit              time.Duration
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
	f.StringVar(&o.results, "results", "conformance/results", "folder for e2e.jsonl and conformance.md")
	f.StringVar(&o.logs, "logs", "/var/tmp/hythe-e2e", "folder for what the tests print")
	f.StringVar(&o.focus, "focus", `\[sig-network\].*\[Conformance\]`, "regular expression for names of tests")
	f.StringVar(&o.skip, "skip", "", "regular expression for names of tests that are left out")
	f.BoolVar(&o.again, "again", false, "run also what failed before")
	f.BoolVar(&o.table, "table", false, "run nothing, only write the table")
	f.DurationVar(&o.limit, "limit", 15*time.Minute, "longest time for one test")
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
	t, err := o.tester(ctx, c)
	if err != nil {
		return err
	}
	names, err := o.choose(ctx, t)
	if err != nil {
		return err
	}
	results, err := readResults(o.file())
	if err != nil {
		return err
	}
	todo := missing(names, results, t.run, o.again)
	fmt.Fprintf(out, "%d tests, %d to run on flavour %s\n", len(names), len(todo), t.run.Flavour)
	if err := o.each(ctx, out, t, todo); err != nil {
		return err
	}
	return o.summary(out, names, t.run)
}

func (o options) file() string { return filepath.Join(o.results, "e2e.jsonl") }

// choose lists the tests that focus and skip leave.
func (o options) choose(ctx context.Context, t *tester) ([]string, error) {
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
	if len(names) == 0 {
		return nil, fmt.Errorf("no test has a name like %q", o.focus)
	}
	return names, nil
}

// each runs tests one after the other, and keeps each result at once. It stops when the tests cannot even be prepared.
func (o options) each(ctx context.Context, out io.Writer, t *tester, todo []string) error {
	for i, name := range todo {
		r, err := t.test(ctx, name)
		if err != nil {
			return fmt.Errorf("run %q: %w", name, err)
		}
		if err := appendResult(o.file(), r); err != nil {
			return fmt.Errorf("keep the result: %w", err)
		}
		if err := o.writeTable(); err != nil {
			return err
		}
		fmt.Fprintf(out, "%3d/%d %-7s %4d s  %s\n", i+1, len(todo), r.Result, r.Seconds, name)
		if r.Result == failed {
			fmt.Fprintf(out, "        %s (log: %s)\n", r.Message, t.log(name))
		}
	}
	return nil
}

func (o options) writeTable() error {
	results, err := readResults(o.file())
	if err != nil {
		return err
	}
	path := filepath.Join(o.results, "conformance.md")
	if err := atomicfile.Write(path, []byte(table(results, cluster.Hythe, cluster.Peer)), 0o644); err != nil {
		return fmt.Errorf("write the table: %w", err)
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
