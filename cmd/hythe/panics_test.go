package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/xds/server"
)

// panicProcess is a process with what is needed to count panics.
func panicProcess(t *testing.T, component string) process {
	t.Helper()
	p := process{log: slog.New(slog.DiscardHandler), registry: prometheus.NewRegistry(), state: t.TempDir()}
	var err error
	if p.panics, err = run.NewPanics(p.registry, p.log, panicParts[component]...); err != nil {
		t.Fatal(err)
	}
	return p
}

// panicsOf is what the counter of a process says, by part, without those that are 0.
func panicsOf(t *testing.T, p *process) string {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if n := m.GetCounter().GetValue(); f.GetName() == "hythe_panics_total" && n > 0 {
				out = append(out, fmt.Sprintf("%s %v", m.GetLabel()[0].GetValue(), n))
			}
		}
	}
	return strings.Join(out, ", ")
}

func internalErrors(problems []model.Problem) []string {
	var out []string
	for _, p := range problems {
		if p.Reason == model.ReasonInternalError {
			out = append(out, p.Object.String())
		}
	}
	return out
}

// TestGatewayKeepsLastAfterPanic checks that a Build that panics as a whole leaves Envoy what it has, is a Problem until
// one comes to its end, and ends no process; and that one that panics at an object is counted.
func TestGatewayKeepsLastAfterPanic(t *testing.T) {
	g := gatewayProcess{process: panicProcess(t, "gateway"), node: "n1"}
	var err error
	if g.server, err = server.New(server.Options{Socket: filepath.Join(t.TempDir(), "xds.sock"), Registerer: g.registry, Log: g.log}); err != nil {
		t.Fatal(err)
	}
	s := &model.Snapshot{}
	g.set(s, time.Time{})
	last := g.latest.Load()
	if last == nil || g.fault.Load() != nil {
		t.Fatal("nothing was built")
	}
	g.settings.LocalAddresses = broken.Slice[netip.Addr]()
	g.set(s, time.Time{})
	if g.latest.Load() != last {
		t.Error("another configuration was handed on")
	}
	if got := internalErrors(g.problems()); !slices.Equal(got, []string{"Node n1"}) {
		t.Errorf("Problems of %v", got)
	}
	g.settings.LocalAddresses = nil
	g.set(s, time.Time{})
	if g.latest.Load() == last || len(internalErrors(g.problems())) > 0 {
		t.Error("it does not go on")
	}
	if got := panicsOf(t, &g.process); got != "gateway 1" {
		t.Errorf("counted %s", got)
	}
}

// TestNodePartSurvivesPanic lets the overlay of a node panic, since there are no links: that is a Problem of the node, and
// is tried again.
func TestNodePartSurvivesPanic(t *testing.T) {
	n := &node{process: panicProcess(t, "node"), nodeOptions: nodeOptions{name: "n1"},
		done: map[string]bool{}, issues: map[string][]model.Problem{}, texts: map[string]func() string{}}
	var tasks []func(context.Context) error
	put := n.sinks(&tasks)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tasks[0](ctx) }()
	put(&model.Snapshot{Nodes: map[string]*model.Node{
		"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}},
		"n2": {Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, PodCIDRs: broken.Slice[netip.Prefix]()},
	}})
	deadline := time.Now().Add(20 * time.Second)
	for !slices.Equal(internalErrors(n.problems()), []string{"Node n1"}) {
		if time.Now().After(deadline) {
			t.Fatalf("Problems of %v", internalErrors(n.problems()))
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// One at the Node n2, and one of the part, in each attempt.
	if got := panicsOf(t, &n.process); !slices.Contains([]string{"overlay 2", "overlay 4", "overlay 6"}, got) {
		t.Errorf("counted %s", got)
	}
}
