package speaker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestAddressMoves takes the address of a node to another interface: its agent ends, to be started anew, and owns the VIP
// there. An address that is away for a moment ends nothing.
func TestAddressMoves(t *testing.T) {
	r := newRig(t, 1, corev1.ServiceExternalTrafficPolicyCluster)
	r.startAll()
	r.owner()
	ended := make(chan error, 1)
	agent := r.procs["speakern1"]
	go func() { ended <- agent.Wait() }()

	ns := r.ns("n1")
	r.ip("-n " + ns + " addr del " + rigAddr(1).String() + "/24 dev eth0")
	select {
	case err := <-ended:
		t.Fatalf("the agent ended without an address: %v", err)
	case <-time.After(3 * time.Second):
	}
	r.ip("-n " + ns + " link add eth1 type veth peer name p99 netns " + r.ns("lan"))
	r.ip("-n " + r.ns("lan") + " link set p99 master br0 up")
	r.ip("-n " + ns + " link set eth1 up")
	r.ip("-n " + ns + " addr add " + rigAddr(1).String() + "/24 dev eth1")
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the agent ended without an error, as if it had been told to")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the agent goes on at the interface that the address left")
	}
	log, err := os.ReadFile(filepath.Join(r.data("n1"), "speaker.log"))
	if err != nil || !strings.Contains(string(log), "is on eth1 now") {
		t.Errorf("log %s, %v", log, err)
	}
	delete(r.procs, "speakern1")
	r.start("speaker", "n1")
	r.debug("n1", "owned=true")
}
