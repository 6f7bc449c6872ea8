package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/inspect/show"
	"hythe.dev/hythe/internal/run"
)

const getLong = `Get asks the running processes what they have, and puts their answers together. What is shown is read back from where it is in
use: hosts, routes and certificates from Envoy, Services and drops from the kernel, owners of VIPs from the nodes. An object that
several nodes have is one line; how many of them have it as it should be is a column of it, and -o wide names the others.

%s
Processes are found in this machine's lab, in the cluster that kubectl would ask, or on this machine; --admin, --lab,
--kubeconfig and HYTHE_ADMIN name others. One that does not answer is named
in a warning, and the rest is shown.`

const getExample = `  hythe get vips
  hythe get routes shop.example.com -o wide
  hythe get services -n shop
  hythe get problems --watch
  hythe get certificates -o json | jq -r '.items[] | select(.notAfter < "2027") | .name'`

// getOptions are the flags of hythe get.
type getOptions struct {
	*finder
	filter   show.Filter
	all      bool
	node     string
	output   string
	headless bool
	watch    bool
	interval time.Duration
}

func newGetCommand() *cobra.Command {
	o := getOptions{}
	cmd := &cobra.Command{
		Use:               "get KIND [NAME]",
		Short:             "List what is in use: VIPs, Services, hosts, routes, certificates, problems, drops",
		Long:              fmt.Sprintf(getLong, kindsText()),
		Example:           getExample,
		Args:              getArgs,
		ValidArgsFunction: completeKind,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, _ := show.KindOf(args[0])
			if len(args) > 1 {
				o.filter.Name = args[1]
			}
			if o.all {
				o.filter.Namespace = ""
			}
			if o.output != "" && !slices.Contains(show.Outputs(), o.output) {
				return fmt.Errorf("unknown output %q: use %s", o.output, strings.Join(show.Outputs(), ", "))
			}
			if o.watch {
				return o.runWatch(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), kind)
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), kind)
		},
	}
	o.finder = addFindFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.filter.Namespace, "namespace", "n", "", "only objects of this namespace")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "objects of all namespaces, as without --namespace")
	f.StringVar(&o.node, "node", "", "ask the processes of this node only")
	f.StringVarP(&o.output, "output", "o", "", "wide, json, yaml or name (default: a table)")
	f.BoolVar(&o.headless, "no-headers", false, "leave out the heads of columns")
	f.BoolVarP(&o.watch, "watch", "w", false, "ask again and again, and print what changed")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "with --watch: how often to ask")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(show.Outputs(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func kindsText() string {
	var b bytes.Buffer
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, k := range show.Kinds() {
		fmt.Fprintf(table, "  %s\t%s\n", k.Name, k.Short)
	}
	_ = table.Flush() // to memory
	return b.String()
}

func getArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to get:\n%s", kindsText())
	}
	if _, ok := show.KindOf(args[0]); !ok {
		return fmt.Errorf("there is no kind %q:\n%s", args[0], kindsText())
	}
	if len(args) > 2 {
		return fmt.Errorf("one name at a time, not %s", strings.Join(args[1:], " "))
	}
	return nil
}

func completeKind(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	if len(args) == 0 {
		for _, k := range show.Kinds() {
			out = append(out, cobra.CompletionWithDesc(k.Name, k.Short))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (o *getOptions) run(ctx context.Context, stdout, stderr io.Writer, kind show.Kind) error {
	list, silent, err := o.list(ctx, kind)
	if err != nil {
		return err
	}
	for _, text := range silent {
		fmt.Fprintf(stderr, "Warning: %s\n", text)
	}
	if len(list) == 0 {
		if o.filter.Name != "" {
			return fmt.Errorf("no %s named %q found", kind.Name, o.filter.Name)
		}
		if o.output != "json" && o.output != "yaml" {
			fmt.Fprintf(stderr, "No %s found%s.\n", kind.Name, o.where())
			return nil
		}
	}
	_, plain := colours(stdout)
	return kind.Write(stdout, list, show.Options{
		Output: o.output, Colour: plain != "", Headless: o.headless, Now: time.Now(), Silent: silent,
	})
}

func (o *getOptions) where() string {
	out := ""
	if o.filter.Namespace != "" {
		out += " in namespace " + o.filter.Namespace
	}
	if o.node != "" {
		out += " on node " + o.node
	}
	return out
}

// runWatch prints the lines that were not there the last time, until ctx is done.
func (o *getOptions) runWatch(ctx context.Context, stdout, stderr io.Writer, kind show.Kind) error {
	if o.output == "json" || o.output == "yaml" {
		return errors.New("--watch prints lines: use it without --output, or with wide or name")
	}
	_, plain := colours(stdout)
	options := show.Options{Output: o.output, Colour: plain != "", Headless: o.headless}
	watcher := show.Watcher{Kind: kind, Options: options}
	said := ""
	again := time.NewTicker(o.interval)
	defer again.Stop()
	for {
		list, silent, err := o.list(ctx, kind)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			silent = append(silent, err.Error())
		}
		if now := strings.Join(silent, "\n"); now != said {
			said = now
			for _, text := range silent {
				fmt.Fprintf(stderr, "Warning: %s\n", text)
			}
		}
		if err == nil {
			if err := watcher.Write(stdout, list, time.Now()); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// list asks for all objects of a kind. silent are the processes that said nothing, and why.
func (o *getOptions) list(ctx context.Context, kind show.Kind) (list []show.Item, silent []string, err error) {
	cluster, err := o.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range cluster.Silent {
		silent = append(silent, err.Error())
	}
	asked := question{cluster: cluster, node: o.node, all: o.output == "wide" || o.output == "json" || o.output == "yaml"}
	list, errs := asked.items(ctx, kind.Name)
	for _, err := range errs {
		silent = append(silent, err.Error())
	}
	if len(errs) > 0 && asked.answered == 0 {
		return nil, nil, fmt.Errorf("no process tells its %s: %w", kind.Name, errors.Join(errs...))
	}
	if asked.answered == 0 {
		return nil, nil, fmt.Errorf("no process that knows %s answers%s", kind.Name, o.where())
	}
	return o.filter.Select(list), silent, nil
}

// A question is put to all processes of a component.
type question struct {
	cluster  *inspect.Cluster
	node     string // if set, only there
	all      bool   // also what is of no interest in a short list
	answered int
}

func (q *question) items(ctx context.Context, kind string) ([]show.Item, []error) {
	switch kind {
	case "hosts":
		answers, errs := ask[[]inspect.HostAnswer](ctx, q, "gateway", "hosts")
		return show.Hosts(answers), errs
	case "routes":
		answers, errs := ask[[]inspect.RouteAnswer](ctx, q, "gateway", "routes")
		return show.Routes(answers), errs
	case "certificates":
		answers, errs := ask[[]inspect.CertificateAnswer](ctx, q, "gateway", "certificates")
		return show.Certificates(answers), errs
	case "services":
		answers, errs := ask[[]inspect.ServiceAnswer](ctx, q, "node", "services")
		return show.Services(answers), errs
	case "vips":
		answers, errs := ask[[]inspect.VIPAnswer](ctx, q, "node", "vips")
		return show.VIPs(answers), errs
	case "drops":
		answers, errs := ask[[]inspect.DropAnswer](ctx, q, "node", "drops")
		return show.Drops(answers, q.all), errs
	case "nodes":
		answers, errs := ask[[]inspect.NodeAnswer](ctx, q, "node", "nodes")
		identities := q.identities()
		q.answered += len(identities) // a machine without an agent has processes too
		return show.Nodes(answers, identities), errs
	case "problems":
		answers, errs := ask[[]inspect.ProblemAnswer](ctx, q, "", "problems")
		return show.Problems(answers), errs
	}
	return nil, []error{fmt.Errorf("there is no kind %q", kind)}
}

func (q *question) identities() []inspect.Identity {
	var out []inspect.Identity
	for _, p := range q.cluster.Processes {
		if q.node == "" || p.Node == q.node {
			out = append(out, p.Identity)
		}
	}
	return out
}

// ask puts a question to the processes of a component, or to all, at the same time.
func ask[T any](ctx context.Context, q *question, component, name string) ([]show.From[T], []error) {
	processes := q.cluster.Processes
	if component != "" {
		processes = q.cluster.Component(component)
	}
	if q.node != "" {
		processes = slices.DeleteFunc(slices.Clone(processes), func(p *inspect.Process) bool { return p.Node != q.node })
	}
	answers := make([]show.From[T], len(processes))
	failed := make([]error, len(processes))
	var wg sync.WaitGroup
	for i, p := range processes {
		answers[i].Process, answers[i].Node = p.Name(), p.Node
		wg.Go(func() { failed[i] = p.Get(ctx, name, url.Values{}, &answers[i].Answer) })
	}
	wg.Wait()
	var got []show.From[T]
	var errs []error
	for i, err := range failed {
		switch {
		case err == nil:
			got = append(got, answers[i])
		case !errors.Is(err, run.ErrNotFound) || component != "": // not every process has every answer
			errs = append(errs, fmt.Errorf("%s does not tell its %s: %w", processes[i].Name(), name, err))
		}
	}
	q.answered = len(got)
	return got, errs
}
