package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// What a commit has rows of is not measured again; what an error ended is.
func TestResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	r, err := openResults(path, "one")
	if err != nil {
		t.Fatal(err)
	}
	m := measurement{"lost", "request ms", "hythe", 10}
	if err := r.add(m, []float64{3, 1, 2}, errors.New("it was stopped")); err != nil || r.has("lost", 10) {
		t.Errorf("a partial row counts, or %v", err)
	}
	if err := r.add(m, []float64{3, 1, 2}, nil); err != nil || !r.has("lost", 10) || r.has("lost", 11) {
		t.Errorf("a row does not count, or another does, or %v", err)
	}
	if r, err = openResults(path, "two"); err != nil || len(r.rows) != 2 || r.has("lost", 10) {
		t.Errorf("rows of another commit count, or are not read: %v %v", r, err)
	}
	if table := r.table(); !strings.Contains(table, "| 10 | request ms | hythe | 2 | 1.2 | 2.8 | 2.98 | 3 | 3 |") || strings.Contains(table, "stopped") {
		t.Errorf("table:\n%s", table)
	}
}
