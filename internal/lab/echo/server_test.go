package echo

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestAnswer(t *testing.T) {
	server := httptest.NewServer(Server{Pod: "web-1", Namespace: "shop", Node: "node1", Container: "web", Version: "v1"})
	defer server.Close()
	req, _ := http.NewRequest(http.MethodGet, server.URL+"/cart?status=418", nil)
	req.Host = "shop.example.com"
	req.Header.Set("X-Forwarded-For", "198.51.100.10")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var a Answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("status %d, want 418", resp.StatusCode)
	}
	if a.Pod != "web-1" || a.Version != "v1" || a.Host != "shop.example.com" || a.Path != "/cart?status=418" ||
		a.Headers.Get("X-Forwarded-For") != "198.51.100.10" || "http://"+a.Local != server.URL {
		t.Errorf("answer is %+v", a)
	}
}

func TestFetchOnlyLoopback(t *testing.T) {
	s := Server{}
	for _, target := range []string{"http://203.0.113.1/", "https://localhost/", "file:///etc/passwd", "http://localhost.example.com/"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?fetch="+target, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("fetch %s: status %d, want 400", target, w.Code)
		}
	}
}

// A request in flight at the end is answered; a new connection afterwards is not taken.
func TestGracefulEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := Server{TCP: []uint16{uint16(port)}, Grace: 10 * time.Second}
	go func() { ended <- s.Run(ctx) }()
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	for deadline := time.Now().Add(5 * time.Second); ; {
		if resp, err := http.Get(base); err == nil {
			_ = resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer")
		}
	}
	inFlight := make(chan error, 1)
	written := make(chan struct{})
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = fmt.Fprintf(c, "GET /?sleep=300ms HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		close(written)
		if err == nil {
			_, err = c.Read(make([]byte, 10))
		}
		inFlight <- err
	}()
	<-written
	// The server must have read the request before the end: ask it something on another connection after it.
	if resp, err := http.Get(base + "/?sleep=50ms"); err == nil {
		_ = resp.Body.Close()
	}
	cancel()
	if err := <-inFlight; err != nil {
		t.Errorf("request in flight: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := http.Get(base); err == nil {
		t.Error("a connection was taken after the end")
	}
}
