package proxy_test

import (
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/tools/txtar"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// TestUpdateEqualsBuild changes endpoints of the golden tests' Services at random: what Update says of each change, on top of
// the State before, is what Build makes of the Snapshot.
func TestUpdateEqualsBuild(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	updates, builds := 0, 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "input.yaml" })
		settings := flags(t, string(archive.Comment))
		for seed := range uint64(10) {
			r := rand.New(rand.NewPCG(seed, 1))
			var history model.History
			var builder proxy.Builder
			snapshot := history.Note(load(t, archive.Files[i].Data), nil, true)
			have, _ := builder.Build(snapshot, self, settings)
			for range 20 {
				snapshot = history.Note(changeEndpoints(r, snapshot))
				want, wantProblems := proxy.Build(snapshot, self, settings)
				change, problems, ok := builder.Update(snapshot, self, settings)
				if !ok {
					have, _ = builder.Build(snapshot, self, settings)
					builds++
					continue
				}
				updates++
				have.Frontends, have.Hairpins = maps.Clone(have.Frontends), maps.Clone(have.Hairpins)
				change.Apply(have)
				if !reflect.DeepEqual(have, want) {
					t.Fatalf("%s, seed %d: an update made\n%s\nwant\n%s", file, seed, have, want)
				}
				if !slices.Equal(problems, wantProblems) {
					t.Fatalf("%s, seed %d: problems %v, want %v", file, seed, problems, wantProblems)
				}
			}
		}
	}
	if updates < builds {
		t.Errorf("of %d changes only %d were updates", updates+builds, updates)
	}
}

// changeEndpoints returns a Snapshot in which endpoints of some Services changed, and of which, as History.Note wants it.
func changeEndpoints(r *rand.Rand, s *model.Snapshot) (*model.Snapshot, []model.Key, bool) {
	out := *s
	out.Endpoints = maps.Clone(s.Endpoints)
	keys := model.SortedKeys(out.Endpoints)
	var touched []model.Key
	for range 1 + r.IntN(3) {
		if len(keys) == 0 {
			break
		}
		key := keys[r.IntN(len(keys))]
		next := &model.ServiceEndpoints{}
		for _, p := range out.Endpoints[key].Ports {
			p.Endpoints = slices.Clone(p.Endpoints)
			if n := len(p.Endpoints); n > 0 {
				switch e := &p.Endpoints[r.IntN(n)]; r.IntN(6) {
				case 0:
					e.Ready = !e.Ready
				case 1:
					e.Serving, e.Terminating, e.Ready = true, true, false
				case 2:
					p.Endpoints = slices.DeleteFunc(p.Endpoints, func(o model.Endpoint) bool { return o == *e })
				case 3:
					*e = p.Endpoints[0]
				case 4:
					e.Node = []string{self, "n2"}[r.IntN(2)]
				}
			}
			slices.SortStableFunc(p.Endpoints, model.Endpoint.Compare)
			p.Endpoints = slices.CompactFunc(p.Endpoints, func(a, b model.Endpoint) bool { return a.AddrPort == b.AddrPort })
			next.Ports = append(next.Ports, p)
		}
		out.Endpoints[key] = next
		touched = append(touched, key)
	}
	return &out, touched, false
}

// TestUpdateKnowsItsLimits changes what more depends on than some frontends: only Build may do that.
func TestUpdateKnowsItsLimits(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/clusterip.txtar")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "input.yaml" })
	for name, change := range map[string]func(*model.History, *model.Snapshot, *proxy.Settings) *model.Snapshot{
		"something else": func(h *model.History, s *model.Snapshot, _ *proxy.Settings) *model.Snapshot {
			return h.Note(s, nil, true)
		},
		"other history": func(_ *model.History, s *model.Snapshot, _ *proxy.Settings) *model.Snapshot {
			return new(model.History).Note(s, nil, false)
		},
		"settings": func(_ *model.History, s *model.Snapshot, o *proxy.Settings) *model.Snapshot {
			o.Overlay = "x"
			return s
		},
	} {
		var history model.History
		var builder proxy.Builder
		settings := proxy.DefaultSettings()
		s := history.Note(load(t, archive.Files[i].Data), nil, true)
		if _, _, ok := builder.Update(s, self, settings); ok {
			t.Error("an update before the first Build")
		}
		builder.Build(s, self, settings)
		if _, _, ok := builder.Update(s, self, settings); !ok {
			t.Error("no change is no update")
		}
		if s = change(&history, s, &settings); s == nil {
			t.Fatal(name)
		}
		if _, _, ok := builder.Update(s, self, settings); ok {
			t.Errorf("%s: an update", name)
		}
		builder.Build(s, self, settings)
		builder.Forget()
		if _, _, ok := builder.Update(s, self, settings); ok {
			t.Errorf("%s: an update of what was forgotten", name)
		}
	}
}
