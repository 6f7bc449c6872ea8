package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
)

// A process is what all parts have in common: where the cluster comes from, a log, metrics and admin pages.
type process struct {
	manifests, state string
	admin            string
	level            slog.Level

	log      *slog.Logger
	registry *prometheus.Registry
}

// addFlags gives cmd the common flags.
func (p *process) addFlags(cmd *cobra.Command, defaultAdmin string) {
	f := cmd.Flags()
	f.StringVar(&p.manifests, "manifests", "", "folder of Kubernetes manifests to watch")
	f.StringVar(&p.state, "state", "", "folder in which the parts keep claims, status and reports, beside the manifests")
	f.StringVar(&p.admin, "admin", defaultAdmin, "where to serve /healthz, /readyz, /metrics and /debug: HOST:PORT or unix:PATH")
	f.TextVar(&p.level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn or error")
	_ = cmd.MarkFlagDirname("manifests")
	_ = cmd.MarkFlagDirname("state")
	for _, name := range []string{"manifests", "state"} {
		_ = cmd.MarkFlagRequired(name)
	}
}

// start makes log and registry, and the state folder.
func (p *process) start(component string) error {
	p.log = newLogger(component, p.level)
	p.registry = prometheus.NewRegistry()
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := os.MkdirAll(p.state, 0o750); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	return nil
}

// files is the source of snapshots.
func (p *process) files() *kube.Files { return kube.NewFiles(p.manifests, p.state, p.log) }

// report writes the Report of a component on a node, if it changed.
func (p *process) report(r v1alpha1.Report) {
	r.APIVersion, r.Kind = v1alpha1.APIVersion, "Report"
	r.Name = r.Component + "-" + r.Node
	path := filepath.Join(p.state, "report-"+r.Name+".yaml")
	if _, err := kube.WriteObjects(path, []v1alpha1.Report{r}); err != nil {
		p.log.Error("report cannot be written", "error", err)
	}
}

// run runs tasks until ctx is done or one of them fails, then waits for all.
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

// logProblems logs problems that were not there the last time and says which are gone.
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
