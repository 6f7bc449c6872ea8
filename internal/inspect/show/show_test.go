package show

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/inspect"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// said is the input of a case: what each process answered, as it comes over the wire.
type said struct {
	Kind      string             `json:"kind"`
	All       bool               `json:"all"`
	Filter    Filter             `json:"filter"`
	Processes []inspect.Identity `json:"processes"`
	Answers   []struct {
		Node, Process string
		Answer        json.RawMessage
	} `json:"answers"`
}

func decode[T any](t *testing.T, s said) []From[T] {
	t.Helper()
	var out []From[T]
	for _, a := range s.Answers {
		f := From[T]{Node: a.Node, Process: a.Process}
		if err := json.Unmarshal(a.Answer, &f.Answer); err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

func (s said) items(t *testing.T) []Item {
	t.Helper()
	switch s.Kind {
	case "hosts":
		return Hosts(decode[[]inspect.HostAnswer](t, s))
	case "routes":
		return Routes(decode[[]inspect.RouteAnswer](t, s))
	case "certificates":
		return Certificates(decode[[]inspect.CertificateAnswer](t, s))
	case "services":
		return Services(decode[[]inspect.ServiceAnswer](t, s))
	case "vips":
		return VIPs(decode[[]inspect.VIPAnswer](t, s))
	case "drops":
		return Drops(decode[[]inspect.DropAnswer](t, s), s.All)
	case "nodes":
		return Nodes(decode[[]inspect.NodeAnswer](t, s), s.Processes)
	case "problems":
		return Problems(decode[[]inspect.ProblemAnswer](t, s))
	}
	t.Fatalf("no kind %q", s.Kind)
	return nil
}

func TestKinds(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, a *golden.Archive) {
		var s said
		if err := yaml.UnmarshalStrict(a.Data("in.yaml"), &s); err != nil {
			t.Fatal(err)
		}
		kind, ok := KindOf(s.Kind)
		if !ok {
			t.Fatalf("no kind %q", s.Kind)
		}
		list := s.Filter.Select(s.items(t))
		for _, output := range append([]string{""}, Outputs()...) {
			name := "out." + output
			if output == "" {
				name = "out.text"
			}
			if output == "yaml" || output == "json" && a.Data(name) == nil && len(a.Comment) > 0 {
				continue // the same content as JSON, which one case shows
			}
			var b bytes.Buffer
			if err := kind.Write(&b, list, Options{Output: output, Now: now}); err != nil {
				t.Fatal(err)
			}
			a.Want(t, name, b.String())
		}
	})
}

// All rows of a kind have the columns of the kind: else a table would shift.
func TestCellsMatchColumns(t *testing.T) {
	for kind, list := range map[string][]Item{
		"hosts":        Hosts([]From[[]inspect.HostAnswer]{{Answer: []inspect.HostAnswer{{}}}}),
		"routes":       Routes([]From[[]inspect.RouteAnswer]{{Answer: []inspect.RouteAnswer{{}}}}),
		"certificates": Certificates([]From[[]inspect.CertificateAnswer]{{Answer: []inspect.CertificateAnswer{{}}}}),
		"services":     Services([]From[[]inspect.ServiceAnswer]{{Answer: []inspect.ServiceAnswer{{}}}}),
		"vips":         VIPs([]From[[]inspect.VIPAnswer]{{Answer: []inspect.VIPAnswer{{}}}}),
		"drops":        Drops([]From[[]inspect.DropAnswer]{{Answer: []inspect.DropAnswer{{}}}}, true),
		"nodes":        Nodes([]From[[]inspect.NodeAnswer]{{Answer: []inspect.NodeAnswer{{}}}}, nil),
		"problems":     Problems([]From[[]inspect.ProblemAnswer]{{Answer: []inspect.ProblemAnswer{{}}}}),
	} {
		k, _ := KindOf(kind)
		if len(list) != 1 {
			t.Errorf("%s: %d items", kind, len(list))
			continue
		}
		if got := len(list[0].cells(now)); got != len(k.columns) {
			t.Errorf("%s: %d cells, %d columns", kind, got, len(k.columns))
		}
	}
	if len(Kinds()) != 8 {
		t.Error("a kind is not tested here")
	}
}

func TestColourMarksAndKeepsColumns(t *testing.T) {
	rows := [][]Cell{{{"a", Bad}, {"b", Plain}}, {{"äöü", Plain}, {"c", Warn}}}
	write := func(colour bool) string {
		var b bytes.Buffer
		if err := writeTable(&b, columns("ONE TWO"), rows, func(int) bool { return true }, true, colour); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got, want := write(false), "ONE   TWO\na     b\näöü   c\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	coloured := write(true)
	if !strings.Contains(coloured, "\x1b[31ma\x1b[0m     b") {
		t.Errorf("what is bad is not red: %q", coloured)
	}
	for _, code := range append(codes[1:], bold, reset) {
		coloured = strings.ReplaceAll(coloured, code, "")
	}
	if coloured != write(false) {
		t.Errorf("colours move columns: %q", coloured)
	}
}

func TestWatcherPrintsChanges(t *testing.T) {
	kind, _ := KindOf("vips")
	w := Watcher{Kind: kind}
	vip := func(node string, owned bool) []From[[]inspect.VIPAnswer] {
		a := inspect.VIPAnswer{Pool: "edge", Owned: owned, Healthy: true, OwnedSince: now, Since: now}
		return []From[[]inspect.VIPAnswer]{{Node: node, Answer: []inspect.VIPAnswer{a}}}
	}
	step := func(list []Item, at time.Time) string {
		var b bytes.Buffer
		if err := w.Write(&b, list, at); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := step(VIPs(vip("node1", true)), now); strings.Count(got, "\n") != 2 || !strings.Contains(got, "OWNER") {
		t.Errorf("first: %q", got)
	}
	if got := step(VIPs(vip("node1", true)), now.Add(time.Hour)); got != "" {
		t.Errorf("only ages changed, got %q", got)
	}
	if got := step(VIPs(vip("node2", true)), now); strings.Count(got, "\n") != 1 || !strings.Contains(got, "node2") {
		t.Errorf("changed: %q", got)
	}
	if got := step(nil, now); !strings.HasPrefix(got, "gone: ") {
		t.Errorf("gone: %q", got)
	}
}
