package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGuardsStand checks that each entry still names lines that are there: to take all of them out takes an hour, and until
// somebody does so a guard whose code was changed would guard nothing.
func TestGuardsStand(t *testing.T) {
	t.Chdir("../..")
	files, err := filepath.Glob("conformance/guards/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no entries: %v", err)
	}
	for _, name := range files {
		guards, err := parse(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range guards {
			text, err := os.ReadFile(g.file)
			if err != nil {
				t.Error(err)
			} else if n := strings.Count(string(text), g.original); n != 1 {
				t.Errorf("%s: the guard stands %d times in %s, want once", g.source, n, g.file)
			}
		}
	}
}
