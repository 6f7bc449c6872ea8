package main

import (
	"os"
	"testing"

	"hythe.dev/hythe/conformance/rig/host"
)

// asRig in the environment makes the test the rig's program.
const asRig = "HYTHE_TEST_AS_RIG"

// TestMain lets the rig of a test start its nodes: they run the program that the rig is, which is the test.
func TestMain(m *testing.M) {
	if os.Getenv(asRig) != "" || len(os.Args) > 1 && (os.Args[1] == host.InitCommand || os.Args[1] == host.EnterCommand) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestMissing(t *testing.T) {
	two := 2
	daemonSet := func(want, updated, ready int, observed int64) workload {
		w := workload{Kind: "DaemonSet"}
		w.Metadata.Name, w.Metadata.Generation = "node", 3
		w.Status.DesiredNumberScheduled, w.Status.UpdatedNumberScheduled, w.Status.NumberReady, w.Status.ObservedGeneration = want, updated, ready, observed
		return w
	}
	deployment := func(replicas *int, updated, ready int) workload {
		w := workload{Kind: "Deployment"}
		w.Metadata.Name, w.Spec.Replicas = "dns", replicas
		w.Status.Replicas, w.Status.UpdatedReplicas, w.Status.ReadyReplicas = max(updated, ready), updated, ready
		return w
	}
	for name, c := range map[string]struct {
		w    workload
		want string
	}{
		"complete":              {daemonSet(3, 3, 3, 3), ""},
		"one is not ready":      {daemonSet(3, 3, 2, 3), "node 2/3"},
		"one is of old":         {daemonSet(3, 2, 3, 3), "node 2/3"},
		"nobody has seen it":    {daemonSet(3, 3, 3, 2), "node 0/3"},
		"no node wants it":      {daemonSet(0, 0, 0, 3), ""},
		"deployment":            {deployment(&two, 2, 2), ""},
		"old ones are ready":    {deployment(&two, 2, 3), "dns 0/2"},
		"deployment waits":      {deployment(&two, 2, 1), "dns 1/2"},
		"deployment of default": {deployment(nil, 1, 0), "dns 0/1"},
	} {
		if got := c.w.missing(); got != c.want {
			t.Errorf("%s: missing %q, want %q", name, got, c.want)
		}
	}
}
