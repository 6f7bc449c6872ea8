package authz

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/policy"
)

// BenchmarkCheck is what a request costs the doorkeeper: a password that is known, an answer that is remembered, and a question to a
// server on this machine.
func BenchmarkCheck(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	path := filepath.Join(b.TempDir(), "auth.json")
	cached := policy.ExternalAuth{CacheKey: policy.Pattern{{Text: "all"}}, CacheFor: []policy.CacheTime{{Status: 200, For: time.Hour}}}
	w := auth.Writer{Path: path}
	if err := w.Set(auth.Table{
		"password": {Users: []auth.User{{Name: "ada", Hash: apr1}}}, "remembered": entry(cached, address(s)), "asked": entry(policy.ExternalAuth{}, address(s)),
	}, time.Now()); err != nil {
		b.Fatal(err)
	}
	d := New(Options{Table: path, Log: slog.New(slog.DiscardHandler)})
	for _, name := range []string{"password", "remembered", "asked"} {
		b.Run(name, func(b *testing.B) {
			question := check(name, "a.test", "/", "Authorization", "Basic YWRhOm9wZW4gc2VzYW1l", "Cookie", "a=b")
			for b.Loop() {
				if r, err := d.Check(b.Context(), question); err != nil || r.GetOkResponse() == nil {
					b.Fatal(r, err)
				}
			}
		})
	}
}
