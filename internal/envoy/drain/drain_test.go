package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hythe.dev/hythe/internal/envoy/envoytest"
)

func TestDecision(t *testing.T) {
	start := time.Unix(1000, 0)
	type step struct {
		at   time.Duration
		left remaining
		want bool
	}
	for name, steps := range map[string][]step{
		"nothing is left, after the least time": {{0, remaining{}, false}, {2 * time.Second, remaining{}, false}, {3 * time.Second, remaining{}, true}},
		"a request is under way":                {{time.Minute, remaining{1, 1}, false}, {2 * time.Minute, remaining{1, 1}, false}},
		"idle connections are not waited for": {
			{0, remaining{2, 0}, false}, {3 * time.Second, remaining{2, 0}, false}, {5 * time.Second, remaining{2, 0}, true},
		},
		"a request between begins the idle time again": {
			{0, remaining{2, 0}, false}, {4 * time.Second, remaining{2, 1}, false}, {6 * time.Second, remaining{2, 0}, false},
			{10 * time.Second, remaining{2, 0}, false}, {11 * time.Second, remaining{2, 0}, true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := decision{options: Options{Least: 3 * time.Second, Idle: 5 * time.Second}, started: start}
			for _, s := range steps {
				if got := d.over(start.Add(s.at), s.left); got != s.want {
					t.Errorf("after %s with %+v: over is %t", s.at, s.left, got)
				}
			}
		})
	}
}

func TestParse(t *testing.T) {
	page := "http.http.downstream_cx_active: 3\nhttp.http.downstream_rq_active: 1\nhttp.https.downstream_cx_active: 4\nhttp.ready.downstream_cx_active: 9\n"
	if got := parse([]byte(page)); got != (remaining{7, 1}) {
		t.Errorf("parsed %+v", got)
	}
}

// TestRunNeedsEnvoy wants an error where nobody can be told to drain: the hook has failed then.
func TestRunNeedsEnvoy(t *testing.T) {
	err := Run(t.Context(), Options{Socket: filepath.Join(t.TempDir(), "none.sock"), Deadline: time.Second, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("no error")
	}
}

// TestRunWaitsForABusyEnvoy has an Envoy that does not answer its admin pages at first, while a request is under way.
func TestRunWaitsForABusyEnvoy(t *testing.T) {
	var told, asked atomic.Int32
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count := &asked
		if r.URL.Path == "/healthcheck/fail" {
			count = &told
		}
		switch n := count.Add(1); {
		case n <= 2:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case n == 3:
			fmt.Fprint(w, "http.http.downstream_cx_active: 1\nhttp.http.downstream_rq_active: 1\n")
		default:
			fmt.Fprint(w, "http.http.downstream_cx_active: 0\n")
		}
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	if err := Run(t.Context(), Options{Socket: socket, Deadline: time.Minute, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	if told.Load() != 3 || asked.Load() != 4 {
		t.Errorf("told %d times and asked %d times, want 3 and 4", told.Load(), asked.Load())
	}
}

// TestEnvoyDrains has a slow request under way and a connection that is used again and again, and drains.
func TestEnvoyDrains(t *testing.T) {
	r := envoytest.New(t, nil)
	arrived, release := make(chan bool, 1), make(chan bool)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			arrived <- true
			<-release
		}
		fmt.Fprint(w, "hello")
	}))
	defer backend.Close()
	r.Set(t, envoytest.Config(t, "shop.test", netip.MustParseAddrPort(backend.Listener.Addr().String())))
	ready := func() int {
		resp, err := http.Get("http://" + r.Settings.Ready.String() + "/ready")
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	eventually(t, "ready", func() bool { return ready() == http.StatusOK })

	slow := make(chan *http.Response, 1)
	go func() { slow <- ask(t, dial(t, r.Settings.HTTP), "/slow") }()
	<-arrived
	conn := dial(t, r.Settings.HTTP)
	if resp := ask(t, conn, "/"); resp.Close {
		t.Error("the connection ends before the drain")
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Run(context.Background(), Options{
			Socket: r.Admin, Least: 10 * time.Millisecond, Idle: 20 * time.Second, Deadline: 30 * time.Second,
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}()
	eventually(t, "not ready", func() bool { return ready() == http.StatusServiceUnavailable })
	if resp := ask(t, conn, "/"); resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("answer while it drains: %d, Connection: close %t", resp.StatusCode, resp.Close)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection does not end after its last answer: %v", err)
	}
	if resp := ask(t, dial(t, r.Settings.HTTP), "/"); resp.StatusCode != http.StatusOK {
		t.Errorf("a new connection is answered %d: the VIP may still be here", resp.StatusCode)
	}
	select {
	case err := <-ended:
		t.Fatalf("the drain ended with a request under way (%v)", err)
	default:
	}
	close(release)
	if resp := <-slow; resp == nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("the slow request is answered %+v", resp)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func dial(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

// ask sends a request and reads its answer; nil if there is none.
func ask(t *testing.T, conn net.Conn, path string) *http.Response {
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: shop.test\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("get %s: %v", path, err)
		return nil
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("get %s: %v", path, err)
	}
	return resp
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}
