package localhost

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"hythe.dev/hythe/node/proxy"
)

// serve is a server on this machine that calls handle for each connection; it returns its address.
func serve(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// free is an address that nobody listens at.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func start(t *testing.T) *Server {
	t.Helper()
	s := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(s.all()); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return s
}

func dial(t *testing.T, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			return c.(*net.TCPConn)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestCarry: what one end says comes to the other, each direction ends for itself, and a reset stays one.
func TestCarry(t *testing.T) {
	s := start(t)
	at := free(t)
	for name, c := range map[string]struct {
		handle func(*net.TCPConn)
		want   string
		err    error
	}{
		"all of it, then the answer": {func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			_, _ = io.WriteString(c, strings.ToUpper(string(b)))
			_ = c.Close()
		}, strings.Repeat("HELLO ", 100_000), nil},
		"the server resets": {func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 10))
			abort(c)
		}, "", syscall.ECONNRESET},
	} {
		s.apply(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{serve(t, c.handle)}}})
		client := dial(t, at)
		_, _ = io.WriteString(client, strings.Repeat("hello ", 100_000))
		_ = client.CloseWrite()
		b, err := io.ReadAll(client)
		if string(b) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	// Nobody is there: the client does not wait.
	s.apply(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{free(t)}}})
	if _, err := dial(t, at).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an endpoint that refuses: %v", err)
	}
}

// TestGone: a connection to an endpoint that is gone ends if its Service wants that, and the others go on.
func TestGone(t *testing.T) {
	s := start(t)
	echo := func(c *net.TCPConn) { _, _ = io.Copy(c, c) }
	resetting, plain := free(t), free(t)
	one, two := serve(t, echo), serve(t, echo)
	state := func(keep bool, endpoints ...netip.AddrPort) State {
		b := Backends{Endpoints: endpoints}
		if keep {
			b.Keep = []netip.AddrPort{one}
		}
		out := State{{plain, proxy.TCP}: b}
		b.Reset = true
		out[Listener{resetting, proxy.TCP}] = b
		return out
	}
	says := func(c *net.TCPConn) error {
		_, err := io.WriteString(c, "x")
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err
	}
	s.apply(state(false, one))
	a, b := dial(t, resetting), dial(t, plain)
	for _, step := range []struct {
		state State
		reset bool
	}{{state(false, one), false}, {state(true, two), false}, {state(false, two), true}} {
		if !step.reset {
			if err := errors.Join(says(a), says(b)); err != nil {
				t.Error(err)
			}
		}
		s.apply(step.state)
		if step.reset {
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("it ends with %v", err)
			}
		}
		if err := says(b); err != nil {
			t.Errorf("without the option: %v", err)
		}
	}
}

// TestTooMany: what is carried is bounded, and there is room again.
func TestTooMany(t *testing.T) {
	s := start(t)
	at := free(t)
	s.apply(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })}}})
	first := dial(t, at)
	if _, err := io.WriteString(first, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	for range maxCarried - 1 {
		s.carried[&carriage{end: func() {}, listener: Listener{at, proxy.TCP}}] = struct{}{}
	}
	s.mu.Unlock()
	if _, err := dial(t, at).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one too many: %v", err)
	}
	s.mu.Lock()
	for c := range s.carried {
		if !c.endpoint.IsValid() {
			delete(s.carried, c)
		}
	}
	s.mu.Unlock()
	c := dial(t, at)
	_, _ = io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}
