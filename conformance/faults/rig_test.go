package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/model"
)

// A pod is a server that notes which requests it got, as bytes: it reads what Envoy has written, and nobody made nicer.
type pod struct {
	address netip.AddrPort
	mu      sync.Mutex
	saw     []string
	whole   []string
	broken  []string
}

func newPod(t *testing.T) *pod {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &pod{address: netip.MustParseAddrPort(l.Addr().String())}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

// serve answers each request of a connection.
func (p *pod) serve(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(&lines{Conn: conn, pod: p})
	for {
		req, err := http.ReadRequest(reader)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.note(&p.broken, err.Error())
			}
			return
		}
		p.note(&p.saw, req.Method+" "+req.RequestURI)
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return // Envoy has gone in the middle of it
		}
		p.note(&p.whole, req.Method+" "+req.RequestURI)
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"); err != nil {
			return
		}
	}
}

func (p *pod) note(list *[]string, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*list = append(*list, text)
}

// lines is a connection on which CR and LF come together only, as other servers may take one of them for the end of a line.
type lines struct {
	net.Conn
	pod  *pod
	last byte
}

func (l *lines) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	for _, c := range p[:n] {
		if (l.last == '\r') != (c == '\n') {
			l.pod.note(&l.pod.broken, fmt.Sprintf("a line that ends with %q alone: %q", l.last, p[:n]))
			break
		}
		l.last = c
	}
	return n, err
}

// take returns what came since it was called last: requests that began, those that came to their end, and what was none.
func (p *pod) take() (saw, whole, broken []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	saw, whole, broken = p.saw, p.whole, p.broken
	p.saw, p.whole, p.broken = nil, nil, nil
	return saw, whole, broken
}

// world is a.test with all paths open but /closed, which nobody may ask for.
func world(t *testing.T, p *pod) gateway.Config {
	t.Helper()
	c := envoytest.Config(t, "a.test", p.address)
	nobody := policy.Sources{Deny: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	c.Hosts[0].Routes = slices.Insert(c.Hosts[0].Routes, 0, gateway.Route{
		Match: gateway.Prefix, Path: "/closed", Backend: c.Hosts[0].Routes[0].Backend, Origin: model.Key{Namespace: "shop", Name: "closed"},
		Policy: &policy.Route{Sources: nobody},
	})
	return c
}

// start is an Envoy that serves world.
func start(t *testing.T) (*envoytest.Rig, *pod) {
	t.Helper()
	r, p := envoytest.New(t, nil), newPod(t)
	if _, status := r.Set(t, world(t, p)); len(status.Refused) > 0 {
		t.Fatalf("Envoy refuses %v", status.Refused)
	}
	until(t, "the host is served", func() bool {
		answers, _ := raw(r.Settings.HTTP, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", time.Second)
		return slices.Equal(answers, []int{200})
	})
	p.take()
	return r, p
}

// until asks again until an answer is right.
func until(t *testing.T, what string, right func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !right(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// raw sends bytes on a connection of its own and returns the statuses of all answers that come until it is ended, or
// silent for that long.
func raw(to netip.AddrPort, text string, silence time.Duration) (answers []int, closed bool) {
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		return nil, false
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, text)
	reader := bufio.NewReader(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(silence))
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return answers, !errors.Is(err, os.ErrDeadlineExceeded)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		answers = append(answers, resp.StatusCode)
	}
}

func crlf(lines ...string) string {
	out := ""
	for _, l := range lines {
		out += fmt.Sprintf("%s\r\n", l)
	}
	return out
}
