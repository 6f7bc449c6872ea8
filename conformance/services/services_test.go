package services

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// cases reads all case files.
func cases(t *testing.T) []File {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []File
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		if only := os.Getenv("SERVICES"); only != "" && !strings.Contains(","+only+",", ","+name+",") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files, err := Read(name, data)
		if err != nil {
			t.Error(err)
		}
		out = append(out, files...)
	}
	if t.Failed() {
		t.FailNow()
	}
	return out
}

// decisions reads decisions.txt.
func decisions(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("testdata/decisions.txt")
	if err != nil {
		t.Fatal(err)
	}
	return Decisions(string(data))
}

// workers is how many asks run at a time: most of the time they wait.
const workers = 16

// runAll runs all steps, and returns for each ask in order what was seen.
func (l *lab) runAll(name string, p program, files []File) []Result {
	l.Helper()
	steps := 0
	for _, f := range files {
		steps = max(steps, len(f.Steps))
	}
	var results []Result
	for step := 1; step <= steps; step++ {
		var objects strings.Builder
		var asks []Ask
		for _, f := range files {
			objects.WriteString(objectsOf(l.T, f, step))
			if step <= len(f.Steps) {
				asks = append(asks, f.Steps[step-1].Asks...)
			}
		}
		p.apply(step, objects.String()+canaries(step))
		canary := fmt.Sprintf("10.96.255.%d", step)
		l.waitFor("the canary of IPv4 answers", "node1", canary, "80", "a=node1")
		l.waitFor("the canary of IPv6 answers", "node1", Six(canary), "80", "a=node1")
		results = append(results, l.runStep(name, asks)...)
	}
	return results
}

func (l *lab) runStep(name string, asks []Ask) []Result {
	results := make([]Result, len(asks))
	next := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range next {
				results[i] = Result{Ask: asks[i], Seen: map[string][]string{name: l.run(name, asks[i])}}
			}
		})
	}
	for i := range asks {
		next <- i
	}
	close(next)
	group.Wait()
	return results
}

// judge fails the test for what is not as it should be, and returns how many were right.
func judge(t *testing.T, name string, results []Result) (met int) {
	t.Helper()
	for _, r := range results {
		if r.Met(name) {
			met++
			continue
		}
		t.Errorf("%s step %d: %s: %s: %s, want %s", r.Ask.File, r.Ask.Step, r.Ask, name, strings.Join(r.Seen[name], " "), r.Ask.For(name))
	}
	t.Logf("%s: %d of %d as they should be", name, met, len(results))
	return met
}

// TestServices runs all cases against Hythe.
func TestServices(t *testing.T) {
	files := cases(t)
	l := newLab(t)
	a := l.startAgents(true)
	l.overlayWorks()
	judge(t, Hythe, l.runAll(Hythe, a, files))
}

// TestBeside runs all cases against kube-proxy and against Hythe, and writes the table of both. Each difference has to be in
// the cases.
func TestBeside(t *testing.T) {
	path := findKubeProxy(t)
	files := cases(t)
	var results []Result
	t.Run(KubeProxy, func(t *testing.T) {
		l := newLab(t)
		results = l.runAll(KubeProxy, l.startRival(path), files)
		judge(t, KubeProxy, results)
	})
	t.Run(Hythe, func(t *testing.T) {
		l := newLab(t)
		a := l.startAgents(true)
		l.overlayWorks()
		other := l.runAll(Hythe, a, files)
		judge(t, Hythe, other)
		for i := range results {
			results[i].Seen[Hythe] = other[i].Seen[Hythe]
		}
	})
	if name := os.Getenv("SERVICES_RESULTS"); name != "" && len(results) > 0 {
		text := Table(results, decisions(t), os.Getenv("SERVICES_COMMIT"))
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
