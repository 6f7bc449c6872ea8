package main

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/overlay"
)

// TestNodeWithoutPodCIDR follows a node that nobody gave a range: its Report names the Node and the remedy, which the
// controller makes an Event of, nothing is installed, and the container runtime says that the node is not ready. When
// it has a range all follows.
func TestNodeWithoutPodCIDR(t *testing.T) {
	dir := t.TempDir()
	sub := func(name string) string { return filepath.Join(dir, name) }
	n := &node{
		nodeOptions: nodeOptions{name: "n1", dataDir: sub("data"), runDir: sub("run"), cniConfDir: sub("conf"), cniBinDir: sub("bin"), cniPlugin: sub("plugin")},
		done:        map[string]bool{}, issues: map[string][]model.Problem{},
	}
	n.log, n.state = slog.New(slog.NewTextHandler(io.Discard, nil)), dir
	if err := os.WriteFile(sub("plugin"), []byte("binary"), 0o755); err != nil { //nolint:gosec // as a plugin is
		t.Fatal(err)
	}
	settle := func(ranges ...netip.Prefix) string {
		t.Helper()
		s := &model.Snapshot{Nodes: map[string]*model.Node{"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, PodCIDRs: ranges}}}
		state, problems := overlay.Build(s, "n1", overlay.Settings{})
		var err error
		if state.Keep {
			err = errors.New("not usable")
		}
		_ = n.settle("overlay", s, problems, err)
		data, err := os.ReadFile(sub("report-node-n1.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	installed := func() bool {
		_, err := os.Stat(sub("conf/10-hythe.conflist"))
		return err == nil
	}
	report := settle()
	if !strings.Contains(report, "kind: Node") || !strings.Contains(report, "reason: NoPodCIDR") || !strings.Contains(report, "--allocate-node-cidrs") || strings.Contains(report, "network: true") {
		t.Errorf("Report:\n%s", report)
	}
	if installed() {
		t.Error("a CNI configuration is installed, so that the node becomes ready")
	}
	report = settle(netip.MustParsePrefix("10.244.1.0/24"))
	if strings.Contains(report, "NoPodCIDR") || !strings.Contains(report, "network: true") || !installed() {
		t.Errorf("Report, when it has a range; installed %t:\n%s", installed(), report)
	}
}
