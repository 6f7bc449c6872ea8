package writer

import (
	"encoding/json"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/kube/kubetest"
)

// TestNetworkAvailable clears the condition with the controller's rights, where it is set and where it is absent, and
// leaves the other conditions as they are.
func TestNetworkAvailable(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t)
	s.InstallCRDs(crds)
	bindRoles(s)
	s.Apply(`{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {conditions: [{type: NetworkUnavailable, status: "True", reason: NoRouteCreated},
{type: Ready, status: "True", reason: KubeletReady}]}}`)
	s.Apply(`{apiVersion: v1, kind: Node, metadata: {name: n2}}`)
	w, err := New(s.ConfigFor("hythe-controller"), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"n1", "n2", "gone"} {
		if err := w.networkAvailable(t.Context(), node); err != nil {
			t.Error(err)
		}
	}
	for node, want := range map[string]string{"n1": "NetworkUnavailable=False HytheIsUp, Ready=True KubeletReady, ", "n2": "NetworkUnavailable=False HytheIsUp, "} {
		data, err := json.Marshal(s.Get("v1", "Node", "", node).Object)
		if err != nil {
			t.Fatal(err)
		}
		var n corev1.Node
		if err := json.Unmarshal(data, &n); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, c := range n.Status.Conditions {
			got += fmt.Sprintf("%s=%s %s, ", c.Type, c.Status, c.Reason)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", node, got, want)
		}
	}
}
