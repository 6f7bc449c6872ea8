package demo

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hythe.dev/hythe/internal/lab/echo"
	"hythe.dev/hythe/internal/lab/topology"
)

// A load asks one URL again and again at a steady pace, half of it by HTTP/1.1 with keep-alive and half by HTTP/2, both
// over TLS. It never asks twice for the same answer: whatever is not a 200 from a pod is lost, and so is every connection
// error.
type load struct {
	ns    string
	to    netip.AddrPort
	host  string
	path  string
	roots *x509.CertPool
	// rate is requests a second in all.
	rate int

	mu    sync.Mutex
	tally tally
}

// A tally is what a load did.
type tally struct {
	byProtocol map[string]int // answered, by the protocol that the client spoke
	byVersion  map[string]int // answered, by the pods' version
	lost       []string
	took       []time.Duration
}

func (t tally) requests() int { return len(t.took) + len(t.lost) }

// quantile returns the time within which the share q of requests was answered.
func (t tally) quantile(q float64) time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.took))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

const (
	http1Workers = 8
	http2Workers = 2
)

// run asks until ctx is done; requests in flight are still answered.
func (l *load) run(ctx context.Context) tally {
	l.tally = tally{byProtocol: map[string]int{}, byVersion: map[string]int{}}
	var wg sync.WaitGroup
	for range http1Workers {
		wg.Go(func() { l.http1(ctx, time.Second*2*http1Workers/time.Duration(l.rate)) })
	}
	for range http2Workers {
		wg.Go(func() { l.http2(ctx, time.Second*2*http2Workers/time.Duration(l.rate)) })
	}
	wg.Wait()
	return l.tally
}

// done counts one request.
func (l *load) done(protocol string, resp *http.Response, started time.Time, err error) {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.tally.lost = append(l.tally.lost, fmt.Sprintf("%s %s: %v", started.Format("15:04:05.000"), protocol, err))
		return
	}
	l.tally.byProtocol[protocol]++
	l.tally.byVersion[a.Version]++
	l.tally.took = append(l.tally.took, time.Since(started))
}

func (l *load) request() *http.Request {
	req, err := http.NewRequest(http.MethodGet, "https://"+l.host+l.path, nil)
	if err != nil {
		panic(err) // host and path are the demo's own
	}
	return req
}

func (l *load) dial(ctx context.Context, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	raw, err := topology.Dial(ctx, l.ns, "tcp", l.to.String())
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{ServerName: l.host, RootCAs: l.roots, NextProtos: []string{protocol}})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// http1 sends one request after the other on one connection, until the server closes it.
func (l *load) http1(ctx context.Context, interval time.Duration) {
	var conn net.Conn
	var reader *bufio.Reader
	hangUp := func() {
		if conn != nil {
			_ = conn.Close()
		}
		conn = nil
	}
	defer hangUp()
	pace := newPacer(interval)
	for pace.wait(ctx) {
		started := time.Now()
		if conn == nil {
			c, err := l.dial(context.WithoutCancel(ctx), "http/1.1")
			if err != nil {
				l.done("HTTP/1.1", nil, started, err)
				continue
			}
			conn, reader = c, bufio.NewReader(c)
		}
		_ = conn.SetDeadline(started.Add(askTimeout))
		req := l.request()
		err := req.Write(conn)
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(reader, req) //nolint:bodyclose // done closes it
		}
		l.done("HTTP/1.1", resp, started, err)
		if err != nil || resp.Close {
			hangUp()
		}
	}
}

// http2 sends requests at their times on one connection, also while others are not answered yet.
func (l *load) http2(ctx context.Context, interval time.Duration) {
	var conn *http.ClientConn
	var all []*http.ClientConn
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		for _, c := range all {
			_ = c.Close()
		}
	}()
	transport := &http.Transport{
		Protocols:      new(http.Protocols),
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx, "h2") },
	}
	transport.Protocols.SetHTTP2(true)
	pace := newPacer(interval)
	for pace.wait(ctx) {
		started := time.Now()
		if conn == nil || conn.Err() != nil || conn.Available() == 0 {
			c, err := transport.NewClientConn(context.WithoutCancel(ctx), "https", l.to.String())
			if err != nil {
				conn = nil
				l.done("HTTP/2", nil, started, err)
				continue
			}
			conn = c
			all = append(all, conn)
		}
		used := conn
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
			defer cancel()
			resp, err := used.RoundTrip(l.request().WithContext(ctx))
			l.done("HTTP/2", resp, started, err)
		})
	}
}

// A pacer keeps to a schedule: what was late is made up for.
type pacer struct {
	next     time.Time
	interval time.Duration
}

func newPacer(interval time.Duration) *pacer { return &pacer{next: time.Now(), interval: interval} }

// wait waits for the next moment of the schedule and says whether to go on.
func (p *pacer) wait(ctx context.Context) bool {
	p.next = p.next.Add(p.interval)
	timer := time.NewTimer(time.Until(p.next))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// counts writes a map of counts in a fixed order: "v1 5000, v2 5012".
func counts(m map[string]int) string {
	out := ""
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf("%s %d", k, m[k])
	}
	return out
}
