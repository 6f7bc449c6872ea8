package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
)

// A process is what all parts have in common: where the cluster comes from, a log, metrics and admin pages.
type process struct {
	manifests, state string // file mode, if set
	kubeconfig       string
	cacheDir         string // the API server's last state; empty: not kept
	opaqueSecrets    bool
	admin            string
	level            slog.Level

	log      *slog.Logger
	registry *prometheus.Registry
	server   *kube.RESTConfig             // nil in file mode
	reported *run.Latest[v1alpha1.Report] // on its way to the API server
}

// addFlags gives cmd the common flags.
func (p *process) addFlags(cmd *cobra.Command, defaultAdmin string) {
	f := cmd.Flags()
	f.StringVar(&p.manifests, "manifests", "", "folder of Kubernetes manifests to watch, in place of an API server")
	f.StringVar(&p.state, "state", "", "folder in which the parts keep claims, status and reports, beside the manifests")
	f.StringVar(&p.kubeconfig, "kubeconfig", "", "how to reach the API server (default without --manifests: as the pod that this runs in)")
	f.StringVar(&p.admin, "admin", defaultAdmin, "where to serve /healthz, /readyz, /metrics and /debug: HOST:PORT or unix:PATH")
	f.TextVar(&p.level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn or error")
	_ = cmd.MarkFlagDirname("manifests")
	_ = cmd.MarkFlagDirname("state")
	cmd.MarkFlagsRequiredTogether("manifests", "state")
	cmd.MarkFlagsMutuallyExclusive("manifests", "kubeconfig")
}

// addCacheFlag is for parts that go on while the API server is away.
func (p *process) addCacheFlag(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&p.cacheDir, "cache", "", "folder for the API server's last state, for a start while it is away; "+what)
	_ = cmd.MarkFlagDirname("cache")
}

// start makes log and registry, and the state folder.
func (p *process) start(component string) error {
	p.log = newLogger(component, p.level)
	p.registry = prometheus.NewRegistry()
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if p.manifests == "" {
		p.reported = run.NewLatest[v1alpha1.Report]()
		var err error
		if p.server, err = kube.Config(p.kubeconfig); err != nil {
			return fmt.Errorf("%w: give --kubeconfig, or --manifests and --state to work without an API server", err)
		}
		return nil
	}
	if err := os.MkdirAll(p.state, 0o750); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	return nil
}

// watch hands out snapshots, from the folders or from the API server, and keeps the Report there.
func (p *process) watch(ctx context.Context, kinds []string, handle func(*model.Snapshot)) error {
	if p.server == nil {
		return kube.NewFiles(p.manifests, p.state, p.log).Run(ctx, handle)
	}
	api, err := kube.NewAPI(p.server, kube.APIOptions{
		Kinds: kinds, OpaqueSecrets: p.opaqueSecrets, Status: slices.Contains(kinds, "Report"), // the controller's, who writes it
		CacheDir: p.cacheDir, CacheInMemory: slices.Contains(kinds, "Secret"), Registerer: p.registry,
	}, p.log)
	if err != nil {
		return err
	}
	return runAll(ctx, func(ctx context.Context) error { return api.Run(ctx, handle) }, p.sendReports)
}

// reportsApart is the least time between two writes of a Report to the API server.
const reportsApart = 500 * time.Millisecond

func (p *process) sendReports(ctx context.Context) error {
	writer, err := kube.NewWriter(p.server, p.log)
	if err != nil {
		return err
	}
	return run.Sink(ctx, p.reported, func(ctx context.Context, r v1alpha1.Report) error {
		err := writer.WriteReport(ctx, r)
		if err != nil && ctx.Err() == nil {
			p.log.Warn("report cannot be written", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reportsApart):
		}
		return err
	})
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
