package xds

import (
	"net/netip"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/gateway"
)

// TestStreamPorts has the ports of Envoy's listeners for ports of clients, and none that is another listener's.
func TestStreamPorts(t *testing.T) {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	for name, c := range map[string]struct {
		offset int
		stream gateway.Stream
		want   uint32 // 0 for no listener
	}{
		"low":              {0, gateway.Stream{Protocol: tcp, Port: 25}, 10025},
		"high":             {0, gateway.Stream{Protocol: tcp, Port: 15432}, 15432},
		"Envoy's own":      {0, gateway.Stream{Protocol: tcp, Port: 8080}, 18080},
		"without offset":   {-1, gateway.Stream{Protocol: udp, Port: 53}, 53},
		"http":             {-1, gateway.Stream{Protocol: tcp, Port: 8080}, 0},
		"https":            {-1, gateway.Stream{Protocol: tcp, Port: 8443}, 0},
		"readiness":        {-1, gateway.Stream{Protocol: tcp, Port: 8081}, 0},
		"HTTP/3":           {-1, gateway.Stream{Protocol: udp, Port: 8443}, 0},
		"http of UDP":      {-1, gateway.Stream{Protocol: udp, Port: 8080}, 8080},
		"two of one place": {0, gateway.Stream{Protocol: tcp, Port: 10022}, 0}, // 22 is there
	} {
		t.Run(name, func(t *testing.T) {
			first := gateway.Stream{Protocol: tcp, Port: 22, Backend: "a/b:c"}
			c.stream.Backend = "a/b:c"
			resources, problems := Build(gateway.Config{Streams: []gateway.Stream{first, c.stream}}, Settings{PortOffset: c.offset, HTTP: netip.MustParseAddrPort("0.0.0.0:8080")})
			r := resources.Get(Listener, c.stream.Name())
			if (r == nil) != (c.want == 0) || (len(problems) > 0) != (r == nil) {
				t.Fatalf("the listener is %v, problems %v", r, problems)
			}
			if r == nil {
				return
			}
			var l listenerv3.Listener
			if err := r.Body.UnmarshalTo(&l); err != nil || l.GetAddress().GetSocketAddress().GetPortValue() != c.want {
				t.Errorf("%v: Envoy listens on %s, want port %d", err, l.GetAddress(), c.want)
			}
		})
	}
}
