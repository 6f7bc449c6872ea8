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
	"hythe.dev/hythe/node/cni"
)

// TestSettleInstalls tells the plugin what the overlay carries, and nothing else: not before it does, not a range that
// it refused, and after a disk that was full as soon as there is room.
func TestSettleInstalls(t *testing.T) {
	dir := t.TempDir()
	sub := func(name string) string { return filepath.Join(dir, name) }
	n := &node{
		nodeOptions: nodeOptions{name: "n1", dataDir: sub("data"), runDir: sub("run"), cniConfDir: sub("conf"), cniBinDir: sub("bin"), cniPlugin: sub("plugin")},
		done:        map[string]bool{}, issues: map[string][]model.Problem{},
	}
	n.log, n.state = slog.New(slog.NewTextHandler(io.Discard, nil)), dir
	if err := os.WriteFile(sub("plugin"), []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The node's address must be one of this machine.
	snapshot := func(cidr string) *model.Snapshot {
		return &model.Snapshot{Nodes: map[string]*model.Node{"n1": {
			Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)},
		}}}
	}
	want := func(cidr string) {
		t.Helper()
		data, _ := os.ReadFile(sub("run/cni.json"))
		if cidr == "" && len(data) > 0 || !strings.Contains(string(data), cidr) {
			t.Errorf("the plugin is told %q, want %q", data, cidr)
		}
	}
	_ = n.settle("overlay", snapshot("10.244.1.0/24"), nil, errors.New("not yet"))
	want("")

	// A file in the place of the folder fails as a full disk does.
	if err := os.WriteFile(sub("conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.settle("overlay", snapshot("10.244.1.0/24"), nil, nil); err == nil {
		t.Error("a failure is not tried again")
	}
	if problems := n.problems(); len(problems) != 1 || problems[0].Reason != "PluginNotInstalled" {
		t.Errorf("problems: %v", problems)
	}
	if err := os.Remove(sub("conf")); err != nil {
		t.Fatal(err)
	}
	if err := n.settle("overlay", snapshot("10.244.1.0/24"), nil, nil); err != nil || len(n.problems()) > 0 {
		t.Errorf("error %v, problems %v", err, n.problems())
	}
	want("10.244.1.0/24")
	if _, err := os.Stat(sub("conf/" + cni.ConflistName)); err != nil {
		t.Error(err)
	}

	_ = n.settle("overlay", snapshot("10.244.0.0/16"), nil, errors.New("it overlaps that of another node"))
	want("10.244.1.0/24")
	_ = n.settle("overlay", snapshot("10.244.2.0/24"), nil, nil)
	want("10.244.2.0/24")

	// Somebody deletes and changes files: the sweep brings them back.
	if err := errors.Join(os.Remove(sub("conf/"+cni.ConflistName)), os.Remove(sub("bin/"+cni.LoopbackName)),
		os.WriteFile(sub("bin/"+cni.PluginName), []byte("another"), 0o755), os.WriteFile(sub("run/cni.json"), []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	n.keepPlugin()
	want("10.244.2.0/24")
	for _, name := range []string{cni.PluginName, cni.LoopbackName} {
		if data, err := os.ReadFile(sub("bin/" + name)); err != nil || string(data) != "binary" {
			t.Errorf("%s is %q, error %v", name, data, err)
		}
	}
	if _, err := os.Stat(sub("conf/" + cni.ConflistName)); err != nil {
		t.Error(err)
	}
	if err := os.Remove(sub("plugin")); err != nil {
		t.Fatal(err)
	}
	n.keepPlugin()
	if problems := n.problems(); len(problems) != 1 || problems[0].Reason != "PluginNotInstalled" {
		t.Errorf("problems: %v", problems)
	}
}

// TestStrays changes a node's range while a pod has an address: the pod is named until it is gone.
func TestStrays(t *testing.T) {
	dir := t.TempDir()
	n := &node{nodeOptions: nodeOptions{name: "n1", dataDir: dir}, issues: map[string][]model.Problem{}}
	boot, err := os.ReadFile(cni.BootIDFile)
	if err != nil {
		t.Fatal(err)
	}
	leases := func(list string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "cni"), 0o700), os.WriteFile(filepath.Join(dir, "cni/leases.json"),
			[]byte(`{"bootID":"`+strings.TrimSpace(string(boot))+`","leases":[`+list+`]}`), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	leases(`{"containerID":"4f1c","ifName":"eth0","addresses":["10.244.1.5"],"since":5}`)
	n.findStrays() // before the plugin is installed
	n.installed = &cni.Config{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	n.findStrays()
	if problems := n.problems(); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	n.installed = &cni.Config{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}}
	n.findStrays()
	if problems := n.problems(); len(problems) != 1 || problems[0].Reason != "PodOutsideCIDR" || !strings.Contains(problems[0].Message, "10.244.1.5, container 4f1c") {
		t.Errorf("problems: %v", problems)
	}
	leases("")
	n.findStrays()
	if problems := n.problems(); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}
