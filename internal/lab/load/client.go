package load

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hythe.dev/hythe/internal/lab/echo"
	"hythe.dev/hythe/internal/lab/topology"
)

// A Client asks one URL. It never asks twice for the same answer: whatever is not a 200 from a pod is lost, and so is
// every connection error.
type Client struct {
	// Namespace is the network namespace to ask from, empty for the caller's; To is the server.
	Namespace string
	To        netip.AddrPort
	Host      string
	Path      string
	// Roots are the CAs of the server's certificate.
	Roots *x509.CertPool
	// Rate is requests a second in all.
	Rate int
	// Plain asks by HTTP/1.1 without TLS only, on Connections of them, 8 if that is zero; with Fresh each request has
	// a connection of its own.
	Plain, Fresh bool
	Connections  int
	// Done, if set, is told of each request as it ends. It is called with a lock held.
	Done func(Result)

	mu    sync.Mutex
	tally Tally
}

// A Result is one request that ended.
type Result struct {
	Protocol string // that the client spoke
	Started  time.Time
	Took     time.Duration
	Err      error // nil if it was answered
}

// A Tally is what a Client did.
type Tally struct {
	ByProtocol map[string]int // answered, by the protocol that the client spoke
	ByVersion  map[string]int // answered, by the pods' version
	Lost       []string       // when, how, and why
	Took       []time.Duration
}

// timeout bounds one request, and making one connection.
const timeout = 3 * time.Second

// Requests counts all, answered or lost.
func (t Tally) Requests() int { return len(t.Took) + len(t.Lost) }

// Quantile returns the time within which the share q of requests was answered.
func (t Tally) Quantile(q float64) time.Duration {
	if len(t.Took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.Took))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

const (
	http1Workers = 8
	http2Workers = 2
)

// Run asks until ctx is done; requests in flight are still answered.
func (c *Client) Run(ctx context.Context) Tally {
	c.tally = Tally{ByProtocol: map[string]int{}, ByVersion: map[string]int{}}
	var wg sync.WaitGroup
	if c.Plain {
		workers := cmp.Or(c.Connections, http1Workers)
		for range workers {
			wg.Go(func() { c.http1(ctx, time.Second*time.Duration(workers)/time.Duration(c.Rate)) })
		}
		wg.Wait()
		return c.tally
	}
	for range http1Workers {
		wg.Go(func() { c.http1(ctx, time.Second*2*http1Workers/time.Duration(c.Rate)) })
	}
	for range http2Workers {
		wg.Go(func() { c.http2(ctx, time.Second*2*http2Workers/time.Duration(c.Rate)) })
	}
	wg.Wait()
	return c.tally
}

// done counts one request.
func (c *Client) done(protocol string, resp *http.Response, started time.Time, err error) {
	var a echo.Answer
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d: %.100s", resp.StatusCode, body)
		}
		if err == nil {
			err = json.Unmarshal(body, &a)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Done != nil {
		c.Done(Result{Protocol: protocol, Started: started, Took: time.Since(started), Err: err})
	}
	if err != nil {
		c.tally.Lost = append(c.tally.Lost, fmt.Sprintf("%s %s: %v", started.Format("15:04:05.000"), protocol, err))
		return
	}
	c.tally.ByProtocol[protocol]++
	c.tally.ByVersion[a.Version]++
	c.tally.Took = append(c.tally.Took, time.Since(started))
}

func (c *Client) request() *http.Request {
	req, err := http.NewRequest(http.MethodGet, "https://"+c.Host+c.Path, nil)
	if err != nil {
		panic(err) // host and path are the demo's own
	}
	return req
}

func (c *Client) dial(ctx context.Context, protocol string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, err := topology.Dial(ctx, c.Namespace, "tcp", c.To.String())
	if err != nil || c.Plain {
		return raw, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: c.Host, RootCAs: c.Roots, NextProtos: []string{protocol}})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// http1 sends one request after the other on one connection, until the server closes it.
func (c *Client) http1(ctx context.Context, interval time.Duration) {
	var conn net.Conn
	var reader *bufio.Reader
	hangUp := func() {
		if conn != nil {
			_ = conn.Close()
		}
		conn = nil
	}
	defer hangUp()
	pace := NewPacer(interval)
	for pace.Wait(ctx) {
		started := time.Now()
		if conn == nil {
			fresh, err := c.dial(context.WithoutCancel(ctx), "http/1.1")
			if err != nil {
				c.done("HTTP/1.1", nil, started, err)
				continue
			}
			conn, reader = fresh, bufio.NewReader(fresh)
		}
		_ = conn.SetDeadline(started.Add(timeout))
		req := c.request()
		err := req.Write(conn)
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(reader, req) //nolint:bodyclose // done closes it
		}
		c.done("HTTP/1.1", resp, started, err)
		if err != nil || resp.Close || c.Fresh {
			hangUp()
		}
	}
}

// http2 sends requests at their times on one connection, also while others are not answered yet.
func (c *Client) http2(ctx context.Context, interval time.Duration) {
	var conn *http.ClientConn
	var all []*http.ClientConn
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		for _, old := range all {
			_ = old.Close()
		}
	}()
	transport := &http.Transport{
		Protocols:      new(http.Protocols),
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, "h2") },
	}
	transport.Protocols.SetHTTP2(true)
	pace := NewPacer(interval)
	for pace.Wait(ctx) {
		started := time.Now()
		if conn == nil || conn.Err() != nil || conn.Available() == 0 {
			fresh, err := transport.NewClientConn(context.WithoutCancel(ctx), "https", c.To.String())
			if err != nil {
				conn = nil
				c.done("HTTP/2", nil, started, err)
				continue
			}
			conn = fresh
			all = append(all, conn)
		}
		used := conn
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
			defer cancel()
			resp, err := used.RoundTrip(c.request().WithContext(ctx))
			c.done("HTTP/2", resp, started, err)
		})
	}
}
