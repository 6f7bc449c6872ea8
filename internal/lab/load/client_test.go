package load

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that fails now and then: each failure is counted as lost, once, and nothing is asked again.
func TestCountsWhatIsLost(t *testing.T) {
	var asked, refused, cut atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n := asked.Add(1); {
		case n%10 == 0:
			refused.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		case n%17 == 0:
			cut.Add(1)
			panic(http.ErrAbortHandler) // HTTP/1.1: the connection is closed; HTTP/2: the stream is reset
		default:
			fmt.Fprint(w, `{"pod": "web-1", "version": "v1"}`)
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	c := &Client{To: netip.MustParseAddrPort(server.Listener.Addr().String()), Host: "example.com", Path: "/", Roots: roots, Rate: 800}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan Tally, 1)
	go func() { ended <- c.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); asked.Load() < 400; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d requests in 20 s", asked.Load())
		}
	}
	cancel()
	got := <-ended
	if int64(got.Requests()) != asked.Load() {
		t.Errorf("%d requests counted, the server saw %d", got.Requests(), asked.Load())
	}
	if want := refused.Load() + cut.Load(); int64(len(got.Lost)) != want {
		t.Errorf("%d lost, want %d; the first: %s", len(got.Lost), want, strings.Join(got.Lost[:min(3, len(got.Lost))], "\n"))
	}
	if got.ByProtocol["HTTP/1.1"] == 0 || got.ByProtocol["HTTP/2"] == 0 {
		t.Errorf("answered by protocol: %v", got.ByProtocol)
	}
}

// Nobody listens: every attempt is lost.
func TestCountsConnectionErrors(t *testing.T) {
	c := &Client{To: netip.MustParseAddrPort("127.0.0.1:1"), Host: "example.com", Path: "/", Rate: 800}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got := c.Run(ctx); len(got.Lost) == 0 || len(got.Took) > 0 {
		t.Errorf("%d lost, %d answered", len(got.Lost), len(got.Took))
	}
}

// Plain requests share the connections that were asked for, or have one each.
func TestPlain(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		var connections, told atomic.Int64
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"pod": "web-1", "version": "v1"}`)
		}))
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				connections.Add(1)
			}
		}
		server.Start()
		defer server.Close()
		ctx, cancel := context.WithCancel(t.Context())
		c := &Client{
			To: netip.MustParseAddrPort(server.Listener.Addr().String()), Host: "example.com", Path: "/",
			Rate: 800, Plain: true, Fresh: fresh, Connections: 2,
			Done: func(r Result) {
				if r.Err != nil {
					t.Error(r.Err)
				}
				if told.Add(1) == 50 {
					cancel()
				}
			},
		}
		got := c.Run(ctx)
		cancel()
		if int64(got.Requests()) != told.Load() {
			t.Errorf("fresh %t: %d requests, told of %d", fresh, got.Requests(), told.Load())
		}
		want := int64(2)
		if fresh {
			want = told.Load()
		}
		if connections.Load() != want {
			t.Errorf("fresh %t: %d connections for %d requests, want %d", fresh, connections.Load(), told.Load(), want)
		}
	}
}
