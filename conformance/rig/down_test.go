package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOwnFolder says that the rig removes no folder in which somebody else has something, whatever --dir says.
func TestOwnFolder(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  bool
	}{
		"empty":                {nil, true},
		"a cluster":            {[]string{"cluster.json", "kubeconfig", "pki", "config", "logs", "pids", "nodes", "etcd", "rig"}, true},
		"killed while writing": {[]string{"pki", ".cluster.json.tmp-123"}, true},
		"a home":               {[]string{"pki", "letters"}, false},
		"hidden files":         {[]string{".ssh"}, false},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := ownFolder(dir); (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ownFolder(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no folder: %v", err)
	}
}
