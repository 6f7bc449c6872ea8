package envoy_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// TestAccessLog wants of each request a line in JSON with the Ingress and the Service, and none where the share is nothing.
func TestAccessLog(t *testing.T) {
	for name, share := range map[string]uint32{"all": 1000, "some": 300, "none": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := envoytest.New(t, nil)
			backend := httptest.NewServer(http.NotFoundHandler())
			defer backend.Close()
			c := envoytest.Config(t, "a.test", netip.MustParseAddrPort(backend.Listener.Addr().String()))
			c.Observe = gateway.Observe{Log: gateway.LogJSON, LogPerMille: share}
			if _, status := r.Set(t, c); len(status.Refused) > 0 {
				t.Fatalf("Envoy refuses %v", status.Refused)
			}
			const requests = 300
			for i := range requests {
				get(t, r, fmt.Sprintf("/path/%d", i), nil)
			}
			if share == 0 {
				return // Set would have failed
			}
			// What is sent after them is written after them, on one connection.
			for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.Output.String(), `"/end"`); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing is in the access log")
				}
				get(t, r, "/end", nil)
			}
			// 300 of 1,000 are 90 of these, with a deviation of 8.
			if n := lines(t, r); share == 1000 && n != requests || share == 300 && (n < 45 || n > 135) {
				t.Errorf("%d of %d requests are in the access log", n, requests)
			}
		})
	}
}

// lines counts the lines of the access log, and looks at each.
func lines(t *testing.T, r *envoytest.Rig) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(r.Output.String()) {
		if !strings.HasPrefix(line, `{"`) || !strings.HasSuffix(line, "\n") {
			continue
		}
		if strings.Contains(line, `"/path/`) {
			n++
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if got["host"] != "a.test" || got["ingress"] != "shop/shop" || got["status"] != 404. || got["backend"] == nil || got["traceID"] != nil {
			t.Fatalf("the line is %s", line)
		}
	}
	return n
}

func get(t *testing.T, r *envoytest.Rig, path string, header http.Header) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+r.Settings.HTTP.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host, request.Header = "a.test", header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
}

// A collector takes what is sent to it by gRPC, as it is.
type collector struct {
	mu   sync.Mutex
	text strings.Builder
}

func (c *collector) has(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(c.text.String(), text)
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// TestTracing wants spans at the collector that name the Ingress, and none of what is not chosen, whatever the client asks for.
func TestTracing(t *testing.T) {
	for name, trusted := range map[string][]netip.Prefix{"clients": nil, "clients of a proxy": {netip.MustParsePrefix("127.0.0.0/8")}} {
		t.Run(name, func(t *testing.T) { testTracing(t, gateway.Listen{TrustedProxies: trusted}) })
	}
}

func testTracing(t *testing.T, listen gateway.Listen) {
	got := new(collector)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		got.mu.Lock()
		got.text.WriteString(method + " " + string(message) + "\n")
		got.mu.Unlock()
		return stream.SendMsg(new([]byte))
	}))
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	r := envoytest.New(t, nil)
	backend := httptest.NewServer(http.NotFoundHandler())
	defer backend.Close()
	c := envoytest.Config(t, "a.test", netip.MustParseAddrPort(backend.Listener.Addr().String()))
	h2c := policy.Backend{Protocol: policy.H2C}
	c.Backends = append(c.Backends, gateway.Backend{Name: "zzz/spans:4317", Endpoints: "zzz/spans:4317", Backend: h2c})
	c.EndpointSets = append(c.EndpointSets, gateway.EndpointSet{Name: "zzz/spans:4317", Addresses: []netip.AddrPort{netip.MustParseAddrPort(listener.Addr().String())}})
	c.Listen = listen
	c.Observe = gateway.Observe{Tracing: "zzz/spans:4317"}
	if _, status := r.Set(t, c); len(status.Refused) > 0 {
		t.Fatalf("Envoy refuses %v", status.Refused)
	}
	for range 20 {
		get(t, r, "/unasked", http.Header{"X-Client-Trace-Id": {"please"}})
		// Envoy reads from the letter after the second dash whether it is to be traced.
		get(t, r, "/marked", http.Header{"X-Request-Id": {"4bf92f35-77b3-9da6-a3ce-929d0e0e4736"}})
		get(t, r, "/marked", http.Header{"X-Request-Id": {"4bf92f35-77b3-ada6-a3ce-929d0e0e4736"}})
		get(t, r, "/forced", http.Header{"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}})
	}
	c.Observe.TracePerMille = 1000
	if _, status := r.Set(t, c); len(status.Refused) > 0 {
		t.Fatalf("Envoy refuses %v", status.Refused)
	}
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); !got.has("/sampled"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no span came")
		}
		get(t, r, "/sampled", nil)
	}
	if !got.has("/opentelemetry.proto.collector.trace.v1.TraceService/Export ") || !got.has("hythe.ingress") || !got.has("shop/shop") {
		t.Errorf("the spans are %q", got.text.String())
	}
	if got.has("/unasked") || got.has("/forced") || got.has("/marked") {
		t.Errorf("clients got spans that were not to be sent: asked %t, forced %t, marked %t", got.has("/unasked"), got.has("/forced"), got.has("/marked"))
	}
}
