package kubetest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// A Fault is what a Gate does to a request.
type Fault struct {
	// Delay is how long the request waits before anything else is done with it.
	Delay time.Duration
	// Code is answered in place of the server, with RetryAfter seconds if that is more than 0. 0 asks the server.
	Code, RetryAfter int
	// Cut ends the stream of the answer after so many bytes of its body; 0 lets all pass.
	Cut int
}

// A Gate is an HTTPS server before a kube-apiserver, to be slow, to refuse and to cut answers. All who ask through it are
// administrators.
type Gate struct {
	// URL is where it answers.
	URL string

	mu    sync.Mutex
	fault func(*http.Request) Fault
	hits  int
	ends  map[int]context.CancelFunc // of requests that are under way
	next  int
}

// NewGate lets everything pass until Set says otherwise, and ends with the test.
func NewGate(s *Server) *Gate {
	s.tb.Helper()
	chain, key, err := s.authority.Issue("gate", nil, loopback())
	if err != nil {
		s.tb.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		s.tb.Fatal(err)
	}
	transport, err := rest.TransportFor(s.Config())
	if err != nil {
		s.tb.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0)
	target := &url.URL{Scheme: "https", Host: s.Addr()}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, FlushInterval: -1, ErrorLog: quiet,
	}
	g := &Gate{URL: "https://" + listener.Addr().String(), ends: map[int]context.CancelFunc{}}
	server := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(proxy, w, r) }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ErrorLog:  quiet,
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	s.tb.Cleanup(func() { _ = server.Close() })
	return g
}

// Set says what happens to each request from now on; nil lets all pass.
func (g *Gate) Set(fault func(*http.Request) Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault, g.hits = fault, 0
}

// Hits is how many requests met a fault since the last Set.
func (g *Gate) Hits() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hits
}

// Break ends all requests that are under way, watches above all.
func (g *Gate) Break() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, end := range g.ends {
		end()
	}
}

// remember notes a request that is under way, until done is called.
func (g *Gate) remember(r *http.Request) (out *http.Request, done func()) {
	ctx, cancel := context.WithCancel(r.Context())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	id := g.next
	g.ends[id] = cancel
	return r.WithContext(ctx), func() {
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.ends, id)
	}
}

func (g *Gate) decide(r *http.Request) Fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault == nil {
		return Fault{}
	}
	f := g.fault(r)
	if f != (Fault{}) {
		g.hits++
	}
	return f
}

func (g *Gate) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	f := g.decide(r)
	r, done := g.remember(r)
	defer done()
	select {
	case <-r.Context().Done():
		return
	case <-time.After(f.Delay):
	}
	if f.Code != 0 {
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(f.RetryAfter))
		}
		w.Header().Set("Content-Type", "text/plain") // as the server's own filters answer
		w.WriteHeader(f.Code)
		fmt.Fprintln(w, http.StatusText(f.Code))
		return
	}
	if f.Cut > 0 {
		w = &cutWriter{ResponseWriter: w, left: f.Cut}
	}
	next.ServeHTTP(w, r)
}

// A cutWriter passes the first bytes of a body on and then ends the answer.
type cutWriter struct {
	http.ResponseWriter
	left int
}

// Write implements io.Writer.
func (c *cutWriter) Write(data []byte) (int, error) {
	if len(data) <= c.left {
		c.left -= len(data)
		return c.ResponseWriter.Write(data)
	}
	_, _ = c.ResponseWriter.Write(data[:c.left])
	c.left = 0
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// Unwrap is for http.ResponseController.
func (c *cutWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
