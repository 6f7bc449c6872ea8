package proxy_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// self is the node that all cases are built for.
const self = "node-1"

func load(t *testing.T, yaml []byte) *model.Snapshot {
	t.Helper()
	file := filepath.Join(t.TempDir(), "input.yaml")
	if err := os.WriteFile(file, yaml, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := kube.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Problems {
		t.Errorf("input: %s", p)
	}
	return s
}

// TestBuild reads Kubernetes YAML from each file of testdata and compares the state's text with what stands beside it.
func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, archive *golden.Archive) {
		s := load(t, archive.Data("input.yaml"))
		settings := proxy.DefaultSettings()
		if class, ok := strings.CutPrefix(strings.TrimSpace(string(archive.Comment)), "--balancer-class "); ok {
			settings.BalancerClasses = strings.Fields(class)
		}
		state, problems := proxy.Build(s, self, settings)
		got := state.String()
		for _, p := range problems {
			got += "problem " + p.String() + "\n"
		}
		again, problemsAgain := proxy.Build(s, self, settings)
		if !reflect.DeepEqual(state, again) || !slices.Equal(problems, problemsAgain) {
			t.Error("a second Build of the same snapshot returned something else")
		}
		archive.Want(t, "want", got)
	})
}

// TestBuildServiceAgrees builds a snapshot Service by Service and finds the same as Build.
func TestBuildServiceAgrees(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/loadbalancer.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s := load(t, (&golden.Archive{Archive: archive}).Data("input.yaml"))
	whole, _ := proxy.Build(s, self, proxy.DefaultSettings())
	vips := map[string][]netip.Addr{}
	for _, claim := range s.Claims {
		for _, ref := range claim.Spec.Services {
			vips[ref.Name] = append(vips[ref.Name], netip.MustParseAddr(claim.Spec.Address))
		}
	}
	for key, svc := range s.Services {
		part, _ := proxy.BuildService(svc, s.Endpoints[key], vips[key.Name], model.Own{}, s.Nodes[self], self)
		for f, b := range part.Frontends {
			if !whole.Frontends[f].Equal(b) {
				t.Errorf("%s of %s: alone %v, in the whole %v", f, key, b, whole.Frontends[f])
			}
			delete(whole.Frontends, f)
		}
	}
	if len(whole.Frontends) > 0 {
		t.Errorf("frontends of no Service: %v", whole.Frontends)
	}
}
