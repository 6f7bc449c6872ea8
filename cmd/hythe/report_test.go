package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An agent that was just started does not report that it is not ready: until it has read the kernel and heard the other
// nodes, the report of the process before it is nearer to the truth. It does so after a while.
func TestReportOutlivesRestart(t *testing.T) {
	n := node{nodeOptions: nodeOptions{name: "node1"}, done: map[string]bool{}, started: time.Now()}
	n.log, n.state = slog.New(slog.NewTextHandler(t.Output(), nil)), t.TempDir()
	path := filepath.Join(n.state, "report-node-node1.yaml")
	n.writeReport()
	if _, err := os.Stat(path); err == nil {
		t.Error("a process that knows nothing yet wrote a report")
	}
	n.done["overlay"], n.done["proxy"] = true, true
	n.writeReport()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("no report: %v", err)
	}
	broken := node{nodeOptions: n.nodeOptions, done: map[string]bool{}, started: time.Now().Add(-patience)}
	broken.log, broken.state = n.log, t.TempDir()
	broken.writeReport()
	if _, err := os.Stat(filepath.Join(broken.state, "report-node-node1.yaml")); err != nil {
		t.Errorf("an agent that cannot work does not say so: %v", err)
	}
}
