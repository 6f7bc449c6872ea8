package main

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// smokeTests are a dozen of Kubernetes' own tests, each of a part that the others do not touch.
var smokeTests = []string{
	"DNS should provide DNS for services",
	"DNS should provide DNS for the cluster",
	"EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service",
	"EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices",
	"HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol",
	"Ingress API should support creating Ingress API operations",
	"Networking Granular Checks: Pods should function for intra-pod communication: http",
	"Networking Granular Checks: Pods should function for node-pod communication: udp",
	"Services should be able to change the type from ExternalName to ClusterIP",
	"Services should be able to create a functioning NodePort service",
	"Services should have session affinity work for NodePort service",
	"Services should serve a basic endpoint from pods",
}

// kubernetes runs them by the program behind make conformance, whose results are the test's own here.
func (s *smoke) kubernetes(ctx context.Context, t *testing.T) {
	program := filepath.Join(t.TempDir(), "e2e")
	if _, err := s.command(ctx, "", "go", "build", "-o", program, "../e2e"); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range smokeTests {
		names = append(names, regexp.QuoteMeta(name))
	}
	cmd := exec.CommandContext(ctx, program, "--dir", s.Dir, "--results", t.TempDir(), "--limit", "3m",
		"--focus", `^\[sig-network\] (`+strings.Join(names, "|")+`)( \[LinuxOnly\])?( \[NodeConformance\])? \[Conformance\]$`)
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := ""
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		t.Log(lines.Text())
		if strings.Contains(lines.Text(), " passed, ") {
			last = lines.Text()
		}
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
		_ = cmd.Process.Kill() // nobody reads what it says
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if want := fmt.Sprintf("%d passed, 0 failed, 0 skipped", len(smokeTests)); last != want {
		t.Errorf("%q, want %q", last, want)
	}
}
