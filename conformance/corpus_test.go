// Package conformance holds tests of what users see, judged from outside.
package conformance

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
)

// TestCorpus builds real manifests that people wrote, file by file, as if their classes were Hythe's. Whatever is
// in them, each Ingress is served or it is said why not, and the Config keeps its promises. Run it with -v for a
// table of what each file gives.
func TestCorpus(t *testing.T) {
	files := corpusFiles(t)
	served := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			snapshot, err := kube.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			settings := gateway.Settings{WithoutClass: true, Classes: classesOf(snapshot)}
			config, problems := gateway.Build(snapshot, settings)
			if err := gateway.Check(config); err != nil {
				t.Error(err)
			}
			t.Logf("\n%s%s", config, problemText(slices.Concat(problems, snapshot.Problems)))
			if skipped := gateway.Skipped(snapshot, settings); len(skipped) > 0 {
				t.Errorf("skipped although its class is adopted: %v", skipped)
			}
			checkAnswered(t, snapshot, config, problems)
			if _, refused := xds.Build(config, xds.Settings{}); len(refused) > 0 {
				t.Errorf("what the gateway serves, Envoy would refuse:\n%s", problemText(refused))
			}
			if snapshot.Ingresses.Len() > 0 {
				served++
			}
		})
	}
	if served < 100 && len(files) >= 100 {
		t.Errorf("only %d of %d files hold an Ingress that could be read", served, len(files))
	}
}

// TestCorpusForeign leaves the classes to whom they belong: every Ingress that is not built says whose it is.
func TestCorpusForeign(t *testing.T) {
	for _, file := range corpusFiles(t) {
		snapshot, err := kube.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		config, _ := gateway.Build(snapshot, gateway.Settings{})
		skipped := gateway.Skipped(snapshot, gateway.Settings{})
		if len(skipped) != snapshot.Ingresses.Len() || len(config.Hosts) != 1 {
			t.Errorf("%s: %d of %d Ingresses skipped, %d hosts", filepath.Base(file), len(skipped), snapshot.Ingresses.Len(), len(config.Hosts))
		}
		for _, s := range skipped {
			if s.Reason == "" {
				t.Errorf("%s: %s is skipped without a reason", filepath.Base(file), s.Ingress)
			}
		}
	}
}

func corpusFiles(t *testing.T) []string {
	t.Helper()
	dir := filepath.Join(testenv.Corpus(t), "ingress")
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s: %v", dir, err)
	}
	return files
}

func classesOf(s *model.Snapshot) []string {
	names := map[string]bool{}
	for _, skipped := range gateway.Skipped(s, gateway.Settings{WithoutClass: true}) {
		names[skipped.Class] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// checkAnswered wants each Ingress to have a route or a Problem, and each path of a canary.
func checkAnswered(t *testing.T, s *model.Snapshot, config gateway.Config, problems []model.Problem) {
	t.Helper()
	answered := map[model.Key]bool{}
	taken := map[string]bool{} // places where a canary takes requests, or has none to take since no backend serves them
	for _, h := range config.Hosts {
		for _, r := range h.Routes {
			answered[r.Origin] = true
			place := fmt.Sprintf("host %s: %s %s", h.Name, r.Match, r.Path)
			if r.Canary != nil {
				taken[r.Canary.Origin.String()+" "+place] = true
			} else if r.Backend == "" {
				taken[place] = true
			}
		}
	}
	o := newOracle(s, refusedBy(problems))
	for _, key := range s.Ingresses.SortedKeys() {
		ing := s.Ingresses.Get(key)
		if !isCanary(ing) {
			if !answered[key] && !told(problems, key, "", "") {
				t.Errorf("Ingress %s has no route, and no Problem says why", key)
			}
			continue
		}
		for _, rule := range ing.Spec.Rules {
			for _, p := range o.paths(ing, rule) {
				if !taken[p.place()] && !taken[key.String()+" "+p.place()] && !p.told(problems, "") {
					t.Errorf("canary %s takes no request at %s, and no Problem says why", key, p.place())
				}
			}
		}
	}
}

func problemText(problems []model.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString("problem " + p.String() + "\n")
	}
	return b.String()
}
