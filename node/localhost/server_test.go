package localhost

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
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

// wants makes a state what is wanted, as if all Services had changed.
func (s *Server) wants(state State) {
	s.apply(state)
	s.endGone(proxy.State{}, func(model.Key) bool { return true })
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
		s.wants(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{serve(t, c.handle)}}})
		client := dial(t, at)
		_, _ = io.WriteString(client, strings.Repeat("hello ", 100_000))
		_ = client.CloseWrite()
		b, err := io.ReadAll(client)
		if string(b) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	// Nobody is there: the client does not wait.
	s.wants(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{free(t)}}})
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
	s.wants(state(false, one))
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
		s.wants(step.state)
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
	s.wants(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })}}})
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

// TestGoneIsThePod: with the option, a connection ends when its endpoint is gone, and not when new ones come to another port of the pod, or
// when the NodePort goes and the Service stays.
func TestGoneIsThePod(t *testing.T) {
	s := start(t)
	at, pod := free(t), serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	web, shop := model.Key{Namespace: "default", Name: "web"}, model.Key{Namespace: "default", Name: "shop"}
	nodePort := proxy.Frontend{Addr: netip.IPv4Unspecified(), Protocol: proxy.TCP, Port: at.Port()}
	clusterIP := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: proxy.TCP, Port: 80}
	state := func(owner model.Key, frontends map[proxy.Frontend]netip.AddrPort) proxy.State {
		out := proxy.State{Frontends: map[proxy.Frontend]proxy.Backends{}, Owners: map[proxy.Frontend]model.Key{},
			NodePortRanges: proxy.Set[netip.Prefix]{netip.MustParsePrefix("0.0.0.0/0"): {}}}
		for f, e := range frontends {
			out.Frontends[f] = proxy.Backends{Outside: []netip.AddrPort{e}, Inside: []netip.AddrPort{e}, Reset: true}
			out.Owners[f] = owner
		}
		return out
	}
	moved := netip.AddrPortFrom(pod.Addr(), pod.Port()+1)
	elsewhere := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), pod.Port())
	steps := []proxy.State{
		state(web, map[proxy.Frontend]netip.AddrPort{nodePort: pod, clusterIP: pod}),
		state(web, map[proxy.Frontend]netip.AddrPort{nodePort: moved, clusterIP: moved}), // the targetPort changes
		state(web, map[proxy.Frontend]netip.AddrPort{clusterIP: pod}),                    // it is of type ClusterIP now
		state(web, map[proxy.Frontend]netip.AddrPort{clusterIP: elsewhere}),              // the pod is replaced
	}
	for name, next := range map[string]func(was, is proxy.State){
		"by a Set":     func(_, is proxy.State) { s.Set(is) },
		"by an Update": func(was, is proxy.State) { s.Update(proxy.Change{Gone: was, Come: is}) },
	} {
		s.Set(steps[0])
		c := dial(t, at)
		says := func() error {
			_, err := io.WriteString(c, "x")
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			return err
		}
		if err := says(); err != nil {
			t.Fatal(err)
		}
		for i, step := range steps[1:3] {
			next(steps[i], step)
			if err := says(); err != nil {
				t.Errorf("%s, step %d: %v", name, i, err)
			}
		}
		other := state(shop, map[proxy.Frontend]netip.AddrPort{{Addr: netip.MustParseAddr("10.96.0.2"), Protocol: proxy.TCP, Port: 80}: elsewhere})
		s.Update(proxy.Change{Come: other}) // of another Service
		if err := says(); err != nil {
			t.Errorf("%s, another Service: %v", name, err)
		}
		next(steps[2], steps[3])
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: when the pod is gone: %v", name, err)
		}
	}
}

// TestNoFiles: where the agent may open no more files, that is what is said, and not that somebody has the port.
func TestNoFiles(t *testing.T) {
	s := New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	owner := model.Key{Namespace: "default", Name: "web"}
	try := func(at netip.AddrPort) string {
		t.Helper()
		s.wants(State{{at, proxy.TCP}: {Endpoints: []netip.AddrPort{at}, Owner: owner}})
		open := map[Listener]io.Closer{}
		var work sync.WaitGroup
		s.listen(t.Context(), open, &work)
		for _, c := range open {
			_ = c.Close()
		}
		work.Wait()
		var texts []string
		for _, p := range s.Problems("one") {
			texts = append(texts, p.Reason+": "+p.Message)
		}
		return strings.Join(texts, "; ")
	}
	at := free(t)
	if got := try(taken.Addr().(*net.TCPAddr).AddrPort()); !strings.HasPrefix(got, "LocalhostPortTaken: ") || !strings.Contains(got, "another nodePort") {
		t.Errorf("a port that is taken: %s", got)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	got := try(at)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got, "LocalhostPortNotServed: ") || !strings.Contains(got, "too many open files") || strings.Contains(got, "nodePort.") {
		t.Errorf("without files: %s", got)
	}
	if got := try(at); got != "" {
		t.Errorf("with files again: %s", got)
	}
}
