package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAdminPages(t *testing.T) {
	notReady := errors.New("not yet")
	socket := filepath.Join(t.TempDir(), "admin.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close() // as after kill -9: the file stays
	admin := Admin{Ready: func() error { return notReady }, Debug: map[string]func(io.Writer){"hosts": func(w io.Writer) { fmt.Fprintln(w, "a host") }}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, "unix:"+socket) }()
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	get := func(path string) (int, string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			resp, err := client.Get("http://admin" + path)
			if err != nil {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond) // until it listens
				continue
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(body)
		}
	}
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/healthz", 200, "ok"}, {"/readyz", 503, "not yet"}, {"/debug/hosts", 200, "a host"}, {"/debug", 200, "/debug/hosts"}, {"/else", 404, ""},
	} {
		if code, body := get(tt.path); code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d %q, want %d %q", tt.path, code, body, tt.code, tt.want)
		}
	}
	if err := admin.Serve(ctx, "unix:"+socket); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
