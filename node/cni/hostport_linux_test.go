package cni_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/cni"
)

// hosted is a call with host ports, as containerd makes it.
func (n *labNode) hosted(t testing.TB, verb, id, path string, ports ...map[string]any) error {
	return n.cni(t, func(c *libcni.CNIConfig) error {
		r := runtimeConf(id, path)
		r.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "web"}}
		r.CapabilityArgs = map[string]any{"portMappings": ports}
		switch verb {
		case "ADD":
			_, err := c.AddNetworkList(context.Background(), n.list, r)
			return err
		case "CHECK":
			return c.CheckNetworkList(context.Background(), n.list, r)
		}
		return c.DelNetworkList(context.Background(), n.list, r)
	})
}

// TestHostPorts says that host ports come with ADD, are looked at by CHECK, and go with DEL and GC, and that only links of
// pods with a port at 127.0.0.1 may carry its packets.
func TestHostPorts(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	path := n.pod(t, "plain").path
	wantPorts := func(id, want, localnet string) {
		t.Helper()
		for _, l := range n.leases(t).Leases {
			if l.ContainerID == id {
				if got := fmt.Sprint(l.HostPorts, l.Pod); got != want {
					t.Errorf("host ports of %s: %s, want %s", id, got, want)
				}
			}
		}
		testenv.InNetNS(t, n.ns, func() {
			name := cni.HostName(cni.Request{ContainerID: id, IfName: "eth0"})
			b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/route_localnet")
			must(t, err)
			if strings.TrimSpace(string(b)) != localnet {
				t.Errorf("route_localnet of %s is %s", id, b)
			}
		})
	}
	wantPorts("plain", "[]", "0")

	testenv.NamedNetNS(t, "ho-hosted")
	const hosted = "/run/netns/ho-hosted"
	port := func(hostIP, protocol string) map[string]any {
		return map[string]any{"hostPort": 54323, "containerPort": 8080, "protocol": protocol, "hostIP": hostIP}
	}
	must(t, n.hosted(t, "ADD", "h", hosted, port("192.0.2.11", "TCP"), port("192.0.2.11", "udp")))
	wantPorts("h", "[tcp 192.0.2.11:54323->8080 udp 192.0.2.11:54323->8080]default/web", "0")
	if text := n.leases(t).String(); !strings.Contains(text, "  host port udp 192.0.2.11:54323->8080\n") {
		t.Errorf("text: %s", text)
	}
	must(t, n.hosted(t, "CHECK", "h", hosted, port("192.0.2.11", "tcp"), port("192.0.2.11", "udp")))
	if err := n.hosted(t, "CHECK", "h", hosted, port("127.0.0.1", "tcp")); err == nil || !strings.Contains(err.Error(), "host ports") {
		t.Errorf("CHECK with other host ports: %v", err)
	}
	if err := n.hosted(t, "ADD", "bad", hosted, port("node", "tcp")); err == nil || !strings.Contains(err.Error(), `portMappings[0]: hostIP "node"`) {
		t.Errorf("ADD with a bad hostIP: %v", err)
	}
	// ADD again is the same again, with the ports that it names.
	must(t, n.hosted(t, "ADD", "h", hosted, port("127.0.0.1", "tcp")))
	wantPorts("h", "[tcp 127.0.0.1:54323->8080]default/web", "1")
	must(t, n.hosted(t, "DEL", "h", hosted))

	// Another pod may ask for what somebody has: the datapath gives it to the older one.
	for _, id := range []string{"g", "g2"} {
		testenv.NamedNetNS(t, "ho-"+id)
		must(t, n.hosted(t, "ADD", id, "/run/netns/ho-"+id, port("", "tcp")))
		wantPorts(id, "[tcp *:54323->8080]default/web", "1")
	}
	testenv.InNetNS(t, n.ns, func() {
		if out, err := n.command(t, "GC", "plain", "").CombinedOutput(); err != nil {
			t.Fatalf("GC: %v\n%s", err, out)
		}
	})
	must(t, n.detach(t, "plain", path))
	n.wantNothing(t)
}
