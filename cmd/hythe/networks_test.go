package main

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/overlay"
)

// TestNetworks checks for which nodes the condition NetworkUnavailable is cleared: those whose agent says that the
// network is in place, once.
func TestNetworks(t *testing.T) {
	s := &model.Snapshot{Nodes: map[string]*model.Node{}, Reports: map[string]*v1alpha1.Report{}}
	add := func(name string, condition corev1.ConditionStatus, component string, network bool) {
		s.Nodes[name] = &model.Node{Name: name, NetworkUnavailable: condition}
		s.Reports[component+"-"+name] = &v1alpha1.Report{Component: component, Node: name, Ready: true, Network: network}
	}
	add("waits", corev1.ConditionTrue, "node", true)
	add("fresh", "", "node", true)
	add("done", corev1.ConditionFalse, "node", true)
	add("other-network", corev1.ConditionTrue, "node", false)
	add("only-gateway", corev1.ConditionTrue, "gateway", true)
	for name, boots := range map[string][2]string{"rebooted": {"new", "old"}, "same-boot": {"new", "new"}, "old-agent": {"new", ""}, "boot-not-known": {"", "old"}} {
		add(name, corev1.ConditionTrue, "node", true)
		s.Nodes[name].BootID, s.Reports["node-"+name].BootID = boots[0], boots[1]
	}
	s.Nodes["without-hythe"] = &model.Node{Name: "without-hythe", NetworkUnavailable: corev1.ConditionTrue}
	s.Reports["node-gone"] = &v1alpha1.Report{Component: "node", Node: "gone", Network: true}
	if got := networks(s); !slices.Equal(got, []string{"boot-not-known", "fresh", "old-agent", "same-boot", "waits"}) {
		t.Errorf("cleared for %v", got)
	}
}

// TestReportNamesBoot wants the boot in a node's Report that its kubelet tells, also after another one.
func TestReportNamesBoot(t *testing.T) {
	n := node{nodeOptions: nodeOptions{name: "n1"}, process: process{server: &client.RESTConfig{}, reported: run.NewLatest[v1alpha1.Report]()}, done: map[string]bool{}}
	for _, boot := range []string{"", "first", "second"} {
		n.last.Store(&model.Snapshot{Nodes: map[string]*model.Node{"n1": {Name: "n1", BootID: boot}, "n2": {Name: "n2", BootID: "other"}}})
		n.writeReport()
		if r, ok := n.reported.Take(); !ok || r.BootID != boot {
			t.Errorf("the Report is %+v, want boot %q", r, boot)
		}
	}
}

// TestNetworkReady checks that a node says so last of all, and not where the network is another's.
func TestNetworkReady(t *testing.T) {
	for name, test := range map[string]struct {
		mode, confDir string
		done          []string
		installed     bool
		want          bool
	}{
		"overlay alone":      {overlay.VXLAN, "/etc/cni/net.d", []string{"overlay"}, false, false},
		"not yet installed":  {overlay.VXLAN, "/etc/cni/net.d", []string{"overlay", "proxy"}, false, false},
		"all":                {overlay.VXLAN, "/etc/cni/net.d", []string{"overlay", "proxy"}, true, true},
		"without the plugin": {overlay.VXLAN, "", []string{"overlay", "proxy"}, false, true},
		"another's network":  {overlay.None, "/etc/cni/net.d", []string{"overlay", "proxy"}, true, false},
	} {
		n := node{nodeOptions: nodeOptions{overlay: overlay.Settings{Mode: test.mode}, cniConfDir: test.confDir}, done: map[string]bool{}}
		for _, part := range test.done {
			n.done[part] = true
		}
		if test.installed {
			n.installed = &cni.Config{}
		}
		if got := n.networkReady(); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
