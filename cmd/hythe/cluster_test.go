package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/check"
	"hythe.dev/hythe/internal/inspect"
)

// TestCluster asks a real cluster, which HYTHE_CLUSTER names by its kubeconfig (make cluster), from outside of it.
func TestCluster(t *testing.T) {
	kubeconfig := os.Getenv("HYTHE_CLUSTER")
	if kubeconfig == "" {
		t.Skip("HYTHE_CLUSTER names no kubeconfig")
	}
	f := found(t, nil, "--kubeconfig", kubeconfig)
	cluster, err := f.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range cluster.Silent {
		t.Errorf("a process is silent: %v", err)
	}
	nodes := cluster.Component("node")
	if len(nodes) == 0 {
		t.Fatal("no node agent answers")
	}
	if len(cluster.Component("controller")) == 0 || len(cluster.Component("gateway")) == 0 {
		t.Errorf("no controller or no gateway answers: %d processes", len(cluster.Processes))
	}
	var told []inspect.NodeAnswer
	if err := nodes[0].Get(t.Context(), "nodes", nil, &told); err != nil || len(told) < len(nodes) {
		t.Errorf("%s knows %d nodes, %d agents answer: %v", nodes[0].Name(), len(told), len(nodes), err)
	}
	hythe := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		root := newCommand()
		root.SetArgs(append(args, "--kubeconfig", kubeconfig))
		root.SetOut(&out)
		root.SetErr(&errs)
		_ = root.ExecuteContext(t.Context()) // check and trace end with 1 where they find something
		t.Logf("hythe %s\n%s%s", strings.Join(args, " "), out.String(), errs.String())
		return out.String()
	}
	var checks []struct {
		Node     string
		Findings []check.Finding
	}
	if err := json.Unmarshal([]byte(hythe("check", "-o", "json")), &checks); err != nil || len(checks) != len(nodes) {
		t.Errorf("check has %d of %d nodes: %v", len(checks), len(nodes), err)
	}
	if got := hythe("get", "nodes", "-o", "name"); strings.Count(got, "\n") < len(nodes) {
		t.Errorf("get nodes: %q", got)
	}
	if got := hythe("trace", "default/kubernetes:443", "--from", nodes[0].Node); !strings.Contains(got, "It arrives") {
		t.Errorf("the way of a node to the API server's Service: %s", got)
	}
}
