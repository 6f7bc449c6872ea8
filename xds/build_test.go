package xds

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/golden"
)

// TestBuild compares the text forms of Configs in testdata. In them "match: 1" is a prefix.
func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, archive *golden.Archive) {
		var config gateway.Config
		if err := yaml.UnmarshalStrict(archive.Files[0].Data, &config); err != nil {
			t.Fatal(err)
		}
		resources, problems := Build(config, Settings{})
		got := resources.String()
		for _, p := range problems {
			got += "problem " + p.String() + "\n"
		}
		again, _ := Build(config, Settings{})
		for _, kind := range Kinds() {
			for _, name := range resources.Names(kind) {
				a, b := resources.Get(kind, name), again.Get(kind, name)
				if a.Version != b.Version || !proto.Equal(a.Body, b.Body) {
					t.Errorf("%s %s differs when it is built again", kind, name)
				}
			}
		}
		archive.Want(t, "xds", got)
	})
}

func TestChainTable(t *testing.T) {
	table := newChainTable([]gateway.Certificate{
		{Name: "default"}, {Name: "exact", ServerNames: []string{"a.b.test"}},
		{Name: "wild", ServerNames: []string{"*.b.test"}}, {Name: "wider", ServerNames: []string{"*.test"}},
	})
	for host, want := range map[string]string{
		"a.b.test": "exact", "c.b.test": "wild", "d.c.b.test": "wild", "b.test": "wider", "*.b.test": "wild",
		"*.c.test": "wider", "test": "default", "other": "default", "*.other": "default", "*.test": "wider",
	} {
		if got := table.certificate(host); got != want {
			t.Errorf("certificate of %s: %s, want %s", host, got, want)
		}
	}
	if got := len(table.stamps("*.b.test")); got != 2 {
		t.Errorf("*.b.test is served on %d chains, want 2: its own and that of a.b.test", got)
	}
}

func TestVersionsFollowContent(t *testing.T) {
	config := gateway.Config{Certificates: []gateway.Certificate{{Name: "default", Chain: []byte("x"), Key: []byte("y")}}}
	before, _ := Build(config, Settings{})
	config.Certificates[0].Key = []byte("z")
	after, _ := Build(config, Settings{})
	if before.Get(Secret, "default").Version == after.Get(Secret, "default").Version {
		t.Error("a new key has the old version")
	}
	if before.Get(Listener, "https").Version != after.Get(Listener, "https").Version {
		t.Error("a new key changes the listener, so its connections would be drained")
	}
}
