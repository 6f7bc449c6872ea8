package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/trace/asked"
)

// TestBuild runs each file of testdata/build. "ask" is a question and where it is from. "edit" changes the Evidence of
// testdata/shop.json, which hythe trace -o evidence printed in a lab: each line is PATH = JSON, or PATH alone for
// something that is taken away.
func TestBuild(t *testing.T) {
	base, err := os.ReadFile("testdata/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	golden.Archives(t, "testdata/build/*.txtar", func(t *testing.T, archive *golden.Archive) {
		text, from, _ := strings.Cut(strings.TrimSpace(string(archive.Data("ask"))), " from ")
		q, err := asked.Parse(text, from, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		ev := decode[asked.Evidence](t, edit(t, base, string(archive.Data("edit"))))
		got, err := Build(q, ev)
		var out strings.Builder
		if err != nil {
			out.WriteString(err.Error() + "\n")
		} else {
			got.WriteText(&out, ev.Now, false)
		}
		archive.Want(t, "text", out.String())
	})
}

// TestBuildLive does the same for testdata/live, with the marked request of testdata/live.json along the same road.
func TestBuildLive(t *testing.T) {
	base, err := os.ReadFile("testdata/live.json")
	if err != nil {
		t.Fatal(err)
	}
	road, err := os.ReadFile("testdata/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	q, err := asked.Parse("https://shop.example.com/", "", netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	ev := decode[asked.Evidence](t, road)
	planned, err := Build(q, ev)
	if err != nil {
		t.Fatal(err)
	}
	golden.Archives(t, "testdata/live/*.txtar", func(t *testing.T, archive *golden.Archive) {
		sent := decode[asked.LiveEvidence](t, edit(t, base, string(archive.Data("edit"))))
		var out strings.Builder
		BuildLive(planned, sent).WriteText(&out, ev.Now, false)
		archive.Want(t, "text", out.String())
	})
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	var ev T
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&ev); err != nil {
		t.Fatal(err)
	}
	return ev
}

// edit changes a JSON document line by line.
func edit(t *testing.T, data []byte, lines string) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(lines) {
		path, value, set := strings.Cut(strings.TrimSpace(line), " = ")
		if path == "" {
			continue
		}
		var v any
		if set {
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		root = put(t, root, strings.Split(path, "."), v, set)
	}
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func put(t *testing.T, in any, path []string, value any, set bool) any {
	t.Helper()
	last := len(path) == 1
	switch in := in.(type) {
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i > len(in) || i == len(in) && (!last || !set) {
			t.Fatalf("no element %q in a list of %d", path[0], len(in))
		}
		switch {
		case last && !set:
			return append(in[:i:i], in[i+1:]...)
		case last && i == len(in):
			return append(in, value)
		case last:
			in[i] = value
		default:
			in[i] = put(t, in[i], path[1:], value, set)
		}
		return in
	case map[string]any:
		switch {
		case last && !set:
			delete(in, path[0])
		case last:
			in[path[0]] = value
		default:
			in[path[0]] = put(t, in[path[0]], path[1:], value, set)
		}
		return in
	}
	t.Fatalf("nothing at %q", path)
	return nil
}

// No answer and no lack of one may make Build panic: each part of the Evidence is taken away in turn.
func TestBuildOfLess(t *testing.T) {
	data, err := os.ReadFile("testdata/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"https://shop.example.com/", "203.0.113.10:443", "hythe-system/gateway", "203.0.113.101:31190"} {
		for _, from := range []string{"", "node2", "10.244.1.7", "hythe-system/envoy-gzhxp"} {
			q, err := asked.Parse(text, from, netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			for name := range whole {
				ev := decode[asked.Evidence](t, edit(t, data, name))
				got, err := Build(q, ev)
				if err != nil && !errors.Is(err, asked.ErrQuestion) {
					t.Errorf("%s from %q without %s: %v", text, from, name, err)
				}
				if err == nil && name != "resolved" && name != "problems" && got.Verdict != Arrives && got.Remedy == "" {
					t.Errorf("%s from %q without %s: %s, and nothing to do", text, from, name, got.Verdict)
				}
			}
			if got, err := Build(q, asked.Evidence{}); err == nil && got.Verdict == Arrives {
				t.Errorf("%s from %q arrives by no evidence", text, from)
			}
		}
	}
}

// FuzzParse looks for questions that make it panic, or that are taken without saying what to do.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"https://shop.example.com/", "203.0.113.10:53/udp", "shop/web:http", "svc/web", "http://[::1%25eth0]/"} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, text, from string) {
		q, err := asked.Parse(text, from, netip.Addr{})
		if err != nil {
			if !errors.Is(err, asked.ErrQuestion) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if _, err := Build(q, asked.Evidence{}); err != nil && !errors.Is(err, asked.ErrQuestion) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
