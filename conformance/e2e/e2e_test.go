package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/golden"
)

const listing = `The following spec names can be used with 'ginkgo run --focus/skip':
    k8s.io/kubernetes/test/e2e/network/service.go:12: [sig-network] Services should b [Conformance]
    k8s.io/kubernetes/test/e2e/network/service.go:11: [sig-network] Services should: a [Conformance]
    k8s.io/kubernetes/test/e2e/network/service.go:13: [sig-network] Services should c [Slow]
    k8s.io/kubernetes/test/e2e/apps/job.go:14: [sig-apps] Job should d [Conformance]

`

func TestParseList(t *testing.T) {
	focus := regexp.MustCompile(`\[sig-network\].*\[Conformance\]`)
	for _, c := range []struct {
		skip *regexp.Regexp
		want []string
	}{
		{nil, []string{"[sig-network] Services should b [Conformance]", "[sig-network] Services should: a [Conformance]"}},
		{regexp.MustCompile("should b"), []string{"[sig-network] Services should: a [Conformance]"}},
	} {
		if got := parseList(listing, focus, c.skip); !slices.Equal(got, c.want) {
			t.Errorf("skip %v: %q, want %q", c.skip, got, c.want)
		}
	}
}

func TestMissing(t *testing.T) {
	now := run{Flavour: "hythe", Commit: "v2", Kubernetes: "v1"}
	with := func(test, end string, change func(*result)) result {
		r := result{Flavour: "hythe", Commit: "v2", Kubernetes: "v1", Test: test, Result: end}
		if change != nil {
			change(&r)
		}
		return r
	}
	results := []result{
		with("a", passed, nil),
		with("b", failed, nil),
		with("c", failed, nil), with("c", passed, nil),
		with("d", skipped, nil),
		with("e", passed, func(r *result) { r.Flavour = "peer" }),
		with("f", passed, func(r *result) { r.Commit = "v1" }),
		with("g", passed, func(r *result) { r.Kubernetes = "v0" }),
	}
	all := []string{"a", "b", "c", "d", "e", "f", "g"}
	if got, want := missing(all, results, now, false), []string{"e", "f", "g"}; !slices.Equal(got, want) {
		t.Errorf("missing %q, want %q", got, want)
	}
	if got, want := missing(all, results, now, true), []string{"b", "e", "f", "g"}; !slices.Equal(got, want) {
		t.Errorf("missing, with failures: %q, want %q", got, want)
	}
}

// report is what ginkgo writes; the second test shares the end of its name with the first.
func report(state, message string) string {
	return fmt.Sprintf(`[{"SpecReports": [
		{"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "passed"},
		{"ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeType": "It", "LeafNodeText": "should a", "State": %q, "Failure": {"Message": %q}},
		{"ContainerHierarchyTexts": ["Other"], "LeafNodeType": "It", "LeafNodeText": "should a", "State": "skipped"}
	]}]`, state, message)
}

func TestParseReport(t *testing.T) {
	const name = "[sig-network] Services should a"
	for _, c := range []struct{ name, in, end, message, err string }{
		{"passed", report("passed", ""), passed, "", ""},
		{"skipped", report("skipped", "needs 2 nodes\nmore"), skipped, "needs 2 nodes", ""},
		{"failed", report("failed", "no answer:\n    <*errors.x>: y"), failed, "no answer", ""},
		{"out of time", report("timedout", "too late"), failed, "too late", ""},
		{"panic", report("panicked", ""), failed, "", ""},
		{"another test", strings.ReplaceAll(report("passed", ""), "Services", "Ingress"), "", "", "the report does not have the test"},
		{"no cluster", `[{"SpecReports": [{"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "nodes not ready"}}]}]`, "", "", "prepare tests: nodes not ready"},
		{"cut off", report("passed", "")[:50], "", "", "read report: unexpected EOF"},
	} {
		end, message, err := parseReport(strings.NewReader(c.in), name)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if end != c.end || message != c.message || text != c.err {
			t.Errorf("%s: %q, %q, %q, want %q, %q, %q", c.name, end, message, text, c.end, c.message, c.err)
		}
	}
}

// TestBeforeSuiteFailed is no result, although ginkgo lists the test as skipped.
func TestBeforeSuiteFailed(t *testing.T) {
	in := strings.Replace(report("skipped", ""), `"State": "passed"`, `"State": "failed", "Failure": {"Message": "no nodes"}`, 1)
	if end, _, err := parseReport(strings.NewReader(in), "[sig-network] Services should a"); err == nil {
		t.Errorf("the test is %s, want an error", end)
	}
}

func TestFirstLine(t *testing.T) {
	if got := firstLine(strings.Repeat("ä", 300)); len([]rune(got)) != longest+1 {
		t.Errorf("kept %d characters, want %d and an ellipsis", len([]rune(got)), longest)
	}
}

// TestResults writes lines, cuts the last one as a crash does, and goes on.
func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "e2e.jsonl")
	if got, err := readResults(path); err != nil || got != nil {
		t.Fatalf("no file: %v, %v", got, err)
	}
	a, b := result{Test: "a", Result: passed}, result{Test: "b", Result: failed, Message: "x\ny"}
	if err := errors.Join(appendResult(path, a), appendResult(path, b)); err != nil {
		t.Fatal(err)
	}
	check := func(want ...result) {
		t.Helper()
		got, err := readResults(path)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("results are %v, %v, want %v", got, err, want)
		}
	}
	check(a, b)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-5); err != nil {
		t.Fatal(err)
	}
	check(a)
	if err := appendResult(path, b); err != nil {
		t.Fatal(err)
	}
	check(a, b)
	if err := os.WriteFile(path, []byte("{}\nno JSON\n{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readResults(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a bad line: %v, want an error that names it", err)
	}
}

func TestTable(t *testing.T) {
	const a, b, c = "[sig-network] A | should_x [Conformance]", "[sig-network] B", "[sig-network] C"
	results := []result{
		{Flavour: "hythe", Commit: "v1", Kubernetes: "v1.36.3", Test: a, Result: failed, Message: "old"},
		{Flavour: "hythe", Commit: "v2", Kubernetes: "v1.36.3", Test: a, Result: passed},
		{Flavour: "hythe", Commit: "v2", Kubernetes: "v1.36.3", Test: b, Result: failed, Message: "no answer from <nil>"},
		{Flavour: "peer", Kubernetes: "v1.36.3", Test: a, Result: passed},
		{Flavour: "peer", Kubernetes: "v1.36.3", Test: c, Result: skipped, Message: "needs SCTP"},
		{Flavour: "guest", Commit: "v2", Kubernetes: "v1.36.3", Test: "in neither column", Result: passed},
	}
	rules, err := parseRules("- A \\|\n\tIs elsewhere.\nnetwork sig-network\nknown B\n\tA limit\n\tof the rig.\n")
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/table.md", table(results, rules, setNetwork, "hythe", "peer"))
	golden.File(t, "testdata/empty.md", table(nil, rules, setConformance, "hythe", "peer"))
}

// TestMain lets the test binary be a small e2e.test of two tests, the second of which fails.
func TestMain(m *testing.M) {
	if os.Getenv("FAKE_E2E") == "" {
		os.Exit(m.Run())
	}
	os.Exit(fake(os.Args[1:]))
}

func fake(args []string) int {
	value := func(flag string) string { return args[slices.Index(args, flag)+1] }
	if slices.Contains(args, "--list-tests") {
		fmt.Print(listing)
		return 0
	}
	report := value("--ginkgo.json-report")
	focus := regexp.MustCompile(value("--ginkgo.focus"))
	var b bytes.Buffer
	for _, name := range parseList(listing, regexp.MustCompile("."), nil) {
		state := "skipped"
		if focus.MatchString(name) {
			state = map[bool]string{true: "passed", false: "failed"}[strings.Contains(name, "should b")]
		}
		fmt.Fprintf(&b, `,{"ContainerHierarchyTexts": [], "LeafNodeType": "It", "LeafNodeText": %q, "State": %q, "Failure": {"Message": "asked"}}`, name, state)
	}
	text := `[{"SpecReports": [` + b.String()[1:] + `]}]`
	if os.Getenv("FAKE_E2E") != "no report" {
		if err := os.WriteFile(report, []byte(text), 0o644); err != nil {
			return 2
		}
	}
	return 1
}

// TestEach runs two tests, and then none, since both have results; again runs the one that failed.
func TestEach(t *testing.T) {
	t.Setenv("FAKE_E2E", "1")
	o := options{results: t.TempDir(), focus: `\[sig-network\].*\[Conformance\]`, beside: 2}
	fakeTester := &tester{
		run: run{Flavour: "hythe", Commit: "v1", Kubernetes: "v1.36.3"}, program: os.Args[0],
		start: (*exec.Cmd).Run, logs: t.TempDir(), limit: time.Minute,
	}
	for _, c := range []struct {
		again bool
		want  int
	}{{false, 2}, {false, 0}, {true, 1}} {
		names, err := o.choose(t.Context(), fakeTester, nil)
		if err != nil {
			t.Fatal(err)
		}
		results, err := readResults(o.file())
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := o.each(t.Context(), &out, fakeTester, nil, missing(names, results, fakeTester.run, c.again)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), "[sig-network]"); got != c.want {
			t.Errorf("ran %d tests, want %d:\n%s", got, c.want, &out)
		}
		if err := o.summary(&out, names, fakeTester.run); err == nil || !strings.Contains(out.String(), "1 passed, 1 failed") {
			t.Errorf("summary: %v\n%s", err, &out)
		}
	}
	if _, err := os.Stat(filepath.Join(o.results, "conformance.md")); err != nil {
		t.Error(err)
	}
}

// TestNoResult has a test without a report, and a run that is stopped.
func TestNoResult(t *testing.T) {
	t.Setenv("FAKE_E2E", "no report")
	o := options{results: t.TempDir(), focus: "Conformance"}
	broken := &tester{program: os.Args[0], start: (*exec.Cmd).Run, logs: t.TempDir(), limit: time.Minute}
	if err := o.each(t.Context(), &bytes.Buffer{}, broken, nil, []string{"a"}); err == nil {
		t.Error("a test without a report is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.each(ctx, &bytes.Buffer{}, broken, nil, []string{"a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a stopped run: %v, want %v", err, context.Canceled)
	}
	if got, err := readResults(o.file()); err != nil || len(got) != 0 {
		t.Errorf("results are %v, %v, want none", got, err)
	}
}
