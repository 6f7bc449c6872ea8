package main

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// Whatever is no answer 200 is a loss, and no client hides one by asking again.
func TestLosses(t *testing.T) {
	// cut ends the connection in place of an answer.
	cut := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	}
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, n int)
		want   string // in the reason of the loss; empty for none
		polite bool
	}{
		"all well":    {func(http.ResponseWriter, int) {}, "", false},
		"unavailable": {func(w http.ResponseWriter, n int) { w.WriteHeader([]int{200, 503}[n%2]) }, "503", false},
		"connection is cut": {func(w http.ResponseWriter, n int) {
			if n == 3 {
				cut(w)
			}
		}, "read answer", false},
		"answer without end": {func(w http.ResponseWriter, _ int) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("short"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "body", false},
		"ended in good order": {func(w http.ResponseWriter, _ int) { w.Header().Set("Connection", "close") }, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				c.answer(w, int(asked.Add(1))-1)
			}))
			defer s.Close()
			l := &load{limit: rate.NewLimiter(1000, 1), requests: map[string]int{}, closed: map[string]int{}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				l.run(ctx, "test", 0, func(context.Context) (client, error) {
					conn, err := net.Dial("tcp", s.Listener.Addr().String())
					if err != nil {
						return nil, err
					}
					return &one{"a.test", "http", conn, bufio.NewReader(conn)}, nil
				})
			}()
			for deadline := time.Now().Add(20 * time.Second); l.total() < 20 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			cancel()
			<-done
			if l.total() < 20 {
				t.Fatalf("only %d requests", l.total())
			}
			if got := int(asked.Load()); got != l.total() {
				t.Errorf("the server was asked %d times, the client says %d", got, l.total())
			}
			if (len(l.lost) > 0) != (c.want != "") || len(l.lost) > 0 && !strings.Contains(l.lost[0].reason, c.want) {
				t.Errorf("losses: %v, want %q", l.lost, c.want)
			}
			if (l.closed["test"] > 0) != c.polite {
				t.Errorf("%d connections ended in good order", l.closed["test"])
			}
		})
	}
}

// A line of the access log is kept if it tells of anything but a pod's 200.
func TestNote(t *testing.T) {
	w := &world{}
	w.note(`[2026-11-23T04:00:00.000Z] "GET /h1-1 HTTP/1.1" 200 - 0 3 1 0 "-" "-" "id" "h1.test" "10.244.0.1:8080"`)
	w.note(`[2026-11-23T04:00:00.000Z] "GET /probe-x HTTP/1.1" 404 NR 0 0 0 - "-" "-" "id" "x.test" "-"`)
	w.note(`[2026-11-23T04:00:00.000Z] "POST /h2-7 HTTP/2" 503 UF 300 91 1 - "-" "-" "id" "h2.test" "10.244.0.1:8080"`)
	w.note(`[2026-11-23T04:00:00.000Z] "POST /h2-8 HTTP/2" 200 UC 300 91 1 - "-" "-" "id" "h2.test" "10.244.0.1:8080"`)
	if got := len(w.lines); got != 2 {
		t.Errorf("%d lines: %q", got, w.lines)
	}
	if got := w.logged("/h2-7"); len(got) != 1 {
		t.Errorf("logged: %q", got)
	}
}

// The gateway's own part is without the time in which Envoy had something to acknowledge.
func TestParts(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	s := step{write: at(0), ack: at(4), event: at(5), first: at(50)}
	messages := []message{
		{at: at(2), sent: true, kind: "VirtualHost", nonce: "0", names: []string{"hosts/other.test"}},
		{at: at(6), kind: "VirtualHost", nonce: "0"},
		{at: at(7), sent: true, kind: "Cluster", nonce: "1", names: []string{"c"}},
		{at: at(10), sent: true, kind: "ClusterLoadAssignment", nonce: "2"},
		{at: at(12), kind: "Cluster", nonce: "1"},
		{at: at(17), kind: "ClusterLoadAssignment", nonce: "2"},
		{at: at(20), sent: true, kind: "VirtualHost", nonce: "3", names: []string{"hosts/new.test"}},
	}
	values := map[string][]float64{}
	if s.note("new.test", messages, values) {
		t.Error("it is done before the host is acknowledged")
	}
	messages = append(messages, message{at: at(23), kind: "VirtualHost", nonce: "3"})
	if !s.note("new.test", messages, values) {
		t.Fatal("it is not done")
	}
	for what, want := range map[string]float64{
		"3 watch event to send ms": 15, "4 of that, the gateway's own ms": 4, "5 send to acknowledgement ms": 3, "6 acknowledgement to first 200 ms": 27,
	} {
		if got := values[what]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
}
