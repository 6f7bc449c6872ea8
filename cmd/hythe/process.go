package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/writer"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
)

// A process is what all parts have in common: where the cluster comes from, a log, metrics and admin pages.
type process struct {
	manifests, state string // file mode, if set
	kubeconfig       string
	apiservers       []string // in place of the kubeconfig's
	cacheDir         string   // the API server's last state; empty: not kept
	opaqueSecrets    bool
	bare             bool // kinds of Hythe's own may be missing
	keepReports      bool // those that are deleted count for a while
	admin, public    string
	level            slog.Level

	log      *slog.Logger
	registry *prometheus.Registry
	panics   *run.Panics
	server   *client.RESTConfig           // nil in file mode
	reported *run.Latest[v1alpha1.Report] // on its way to the API server
	started  time.Time
	handed   *handed
}

// handed is what is known of the Snapshot in use.
type handed struct {
	api atomic.Pointer[kube.API] // nil in file mode and before the first question
	at  atomic.Pointer[time.Time]
}

// panicParts are the parts of each process that may panic without end of the process: the label of hythe_panics_total.
var panicParts = map[string][]string{
	"controller": {"lb"},
	"gateway":    {"gateway", "report", "xds"},
	"node":       {"lb", "overlay", "proxy", "report"},
}

// addFlags gives cmd the common flags.
func (p *process) addFlags(cmd *cobra.Command, defaultAdmin string) {
	f := cmd.Flags()
	f.StringVar(&p.manifests, "manifests", "", "folder of Kubernetes manifests to watch, in place of an API server")
	f.StringVar(&p.state, "state", "", "folder in which the parts keep claims, status and reports, beside the manifests")
	f.StringVar(&p.kubeconfig, "kubeconfig", "", "how to reach the API server (default without --manifests: as the pod that this runs in)")
	f.StringArrayVar(&p.apiservers, "apiserver", nil, "URL of an API server, https://HOST:PORT, in place of the kubeconfig's or the pod's; may be repeated: any that answers is asked")
	f.StringVar(&p.admin, "admin", defaultAdmin, "where to serve /healthz, /readyz, /metrics and /debug: HOST:PORT or unix:PATH")
	f.StringVar(&p.public, "metrics", "", "where to serve /healthz, /readyz and /metrics alone, for other hosts: HOST:PORT; nowhere if empty")
	f.TextVar(&p.level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn or error")
	_ = cmd.MarkFlagDirname("manifests")
	_ = cmd.MarkFlagDirname("state")
	cmd.MarkFlagsRequiredTogether("manifests", "state")
	cmd.MarkFlagsMutuallyExclusive("manifests", "kubeconfig")
	cmd.MarkFlagsMutuallyExclusive("manifests", "apiserver")
}

// addCacheFlag is for parts that go on while the API server is away.
func (p *process) addCacheFlag(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&p.cacheDir, "cache", "", "folder for the API server's last state, for a start while it is away; "+what)
	_ = cmd.MarkFlagDirname("cache")
}

// start makes log and registry, and the state folder.
func (p *process) start(component string) error {
	p.started, p.handed = time.Now(), &handed{}
	p.log = newLogger(component, p.level)
	p.registry = prometheus.NewRegistry()
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if p.panics, err = run.NewPanics(p.registry, p.log, panicParts[component]...); err != nil {
		return err
	}
	if p.manifests == "" {
		p.reported = run.NewLatest[v1alpha1.Report]()
		if p.server, err = client.Config(p.kubeconfig); err != nil {
			return fmt.Errorf("%w: give --kubeconfig, or --manifests and --state to work without an API server", err)
		}
		return client.Servers(p.server, p.apiservers)
	}
	if err := os.MkdirAll(p.state, 0o750); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	return nil
}

// watch hands out snapshots, from the folders or from the API server, and keeps the Report there.
func (p *process) watch(ctx context.Context, kinds []string, handle func(*model.Snapshot)) error {
	inner := handle
	handle = func(s *model.Snapshot) {
		now := time.Now()
		p.handed.at.Store(&now)
		inner(s)
	}
	if p.server == nil {
		return kube.NewFiles(p.manifests, p.state, p.log).Run(ctx, handle)
	}
	api, err := kube.NewAPI(p.server, kube.APIOptions{
		Kinds: kinds, OpaqueSecrets: p.opaqueSecrets, Status: slices.Contains(kinds, "Report"), // the controller's, who writes it
		Proxied:     !slices.Contains(kinds, "Ingress"),
		Bare:        p.bare || !slices.Contains(kinds, "Report"), // who gives addresses must see all claims
		KeepReports: p.keepReports, CacheDir: p.cacheDir, CacheInMemory: slices.Contains(kinds, "Secret"), Registerer: p.registry,
	}, p.log)
	if err != nil {
		return err
	}
	p.handed.api.Store(api)
	return runAll(ctx, func(ctx context.Context) error { return api.Run(ctx, handle) }, p.sendReports)
}

// identity is what this process says of itself.
func (p *process) identity(component, node string) inspect.Identity {
	id := inspect.Identity{Component: component, Node: node, Version: versionText(), Started: p.started, Source: "files"}
	if at := p.handed.at.Load(); at != nil {
		id.Snapshot = *at
	}
	if p.server == nil {
		return id
	}
	id.Source = "api"
	if api := p.handed.api.Load(); api != nil && api.FromCache() {
		id.Source = "cache"
	}
	return id
}

// withConnection adds to problems what the API server does not give: a process without a Snapshot has it from nowhere else.
func (p *process) withConnection(problems []model.Problem) []model.Problem {
	if api := p.handed.api.Load(); api != nil {
		problems = slices.Compact(model.SortProblems(slices.Concat(problems, api.Problems())))
	}
	return problems
}

// inspectors are the answers that each process has, and more.
func (p *process) inspectors(component, node string, more map[string]run.Inspector) map[string]run.Inspector {
	out := map[string]run.Inspector{
		"process": func(context.Context, url.Values) (any, error) { return p.identity(component, node), nil },
	}
	maps.Copy(out, more)
	return out
}

// reportsApart is the least time between two writes of a Report to the API server.
const reportsApart = 500 * time.Millisecond

// reportsAgain is how often a Report that did not change is given to the writer, who looks for it now and then.
const reportsAgain = 10 * time.Second

func (p *process) sendReports(ctx context.Context) error {
	w, err := writer.New(p.server, p.log)
	if err != nil {
		return err
	}
	var last *v1alpha1.Report
	failing := false // which is logged once
	tick := time.NewTimer(reportsAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.reported.Ready():
			if r, ok := p.reported.Take(); ok {
				last = &r
			}
		case <-tick.C:
		}
		next := reportsAgain
		if last != nil {
			err := p.panics.Err("report", contain.Call(func() error { return w.WriteReport(ctx, *last) }))
			if err != nil {
				next = run.Retry
			}
			if err != nil && !failing && ctx.Err() == nil {
				p.log.Warn("report cannot be written, it is tried again", "error", err)
			}
			failing = err != nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(reportsApart):
		}
		tick.Reset(next)
	}
}

// report writes the Report of a component on a node, if it changed.
func (p *process) report(r v1alpha1.Report) {
	if p.server != nil {
		p.reported.Put(r)
		return
	}
	r.APIVersion, r.Kind = v1alpha1.APIVersion, "Report"
	r.Name = r.Component + "-" + r.Node
	path := filepath.Join(p.state, "report-"+r.Name+".yaml")
	if _, err := kube.WriteObjects(path, []v1alpha1.Report{r}); err != nil {
		p.log.Error("report cannot be written", "error", err)
	}
}

// serve serves the admin pages, and to other hosts what they may see of them.
func (p *process) serve(ctx context.Context, pages run.Admin) error {
	return runAll(ctx,
		func(ctx context.Context) error { return pages.Serve(ctx, p.admin) },
		func(ctx context.Context) error { return pages.Public().Serve(ctx, p.public) },
	)
}

// runAll runs tasks until ctx is done or one of them fails, then waits for all.
func runAll(ctx context.Context, tasks ...func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, task := range tasks {
		group.Go(func() error { return task(ctx) })
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lockFile takes an exclusive lock for the life of the process: two controllers must not write one state folder.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w: another process has it, end that one first", path, err)
	}
	return f, nil
}

// A problemLog logs problems that were not there the last time and says which are gone.
type problemLog struct {
	log  *slog.Logger
	last map[model.Problem]bool
}

func (l *problemLog) set(problems []model.Problem) {
	now := make(map[model.Problem]bool, len(problems))
	for _, p := range problems {
		now[p] = true
		if !l.last[p] {
			l.log.Warn(p.Message, "object", p.Object.String(), "reason", p.Reason)
		}
	}
	for p := range l.last {
		if !now[p] {
			l.log.Info("solved: "+p.Message, "object", p.Object.String(), "reason", p.Reason)
		}
	}
	l.last = now
}

func writeProblems(w io.Writer, problems []model.Problem) {
	if len(problems) == 0 {
		fmt.Fprintln(w, "no problems")
	}
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
}

func parseKey(s string) (model.Key, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" {
		return model.Key{}, fmt.Errorf("%q is not NAMESPACE/NAME", s)
	}
	return model.Key{Namespace: namespace, Name: name}, nil
}
