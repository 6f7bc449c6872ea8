package apiserver

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An answers is an API server that notes what it is asked.
type answers struct {
	mu     sync.Mutex
	asked  []string
	code   map[string]int // by the end of the path
	bodies map[string]string
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	a.bodies[r.URL.Path] = string(body)
	for end, code := range a.code {
		if strings.HasSuffix(r.URL.Path, end) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, `{"message":"no"}`)
		}
	}
}

func (a *answers) take() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.asked = nil }()
	return strings.Join(a.asked, "\n")
}

func service(name, label string) *corev1.Service {
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, Labels: map[string]string{"l": label}},
		Status: corev1.ServiceStatus{Conditions: []metav1.Condition{{Type: "x"}}},
	}
}

// TestStore checks which requests a Store sends.
func TestStore(t *testing.T) {
	api := &answers{code: map[string]int{}, bodies: map[string]string{}}
	server := httptest.NewServer(api)
	defer server.Close()
	client := &Client{url: server.URL, http: server.Client()}
	s := NewStore(client)
	const path = "/api/v1/namespaces/n/services/"
	put := func(what, wantErr, want string, objects ...any) {
		t.Helper()
		err := s.Put(context.Background(), "services", objects)
		if wantErr == "" && err != nil || wantErr != "" && (err == nil || err.Error() != wantErr) {
			t.Errorf("%s: error %v, want %q", what, err, wantErr)
		}
		if got := api.take(); got != want {
			t.Errorf("%s: asked\n%s\nwant\n%s", what, got, want)
		}
	}
	again := func(what, want string) {
		t.Helper()
		s.tried = time.Time{}
		s.Again(context.Background())
		if got := api.take(); got != want {
			t.Errorf("%s: asked\n%s\nwant\n%s", what, got, want)
		}
	}
	put("two Services", "", "PATCH /api/v1/namespaces/n\nPATCH "+path+"a\nPATCH "+path+"b", service("a", "1"), service("b", "1"))
	if strings.Contains(api.bodies[path+"a"], "status") {
		t.Errorf("the status of a Service was applied: %s", api.bodies[path+"a"])
	}
	put("the same", "", "", service("a", "1"), service("b", "1"))
	put("another label", "", "PATCH "+path+"b", service("a", "1"), service("b", "2"))
	put("one less", "", "DELETE "+path+"a", service("b", "2"))
	api.code["/b"] = http.StatusUnprocessableEntity
	put("refused", "apply v1 Service n b: 422: no", "PATCH "+path+"b", service("b", "3"))
	again("what was refused", "")
	delete(api.code, "/b")
	put("mended", "", "PATCH "+path+"b", service("b", "4"))
	api.code["/c"] = http.StatusServiceUnavailable
	put("not now", "apply v1 Service n c: 503: no", "PATCH "+path+"c", service("b", "4"), service("c", "1"))
	delete(api.code, "/c")
	again("what was not possible", "PATCH "+path+"c")
	again("nothing is left to do", "")
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	// While nobody answers all is remembered, also what to delete.
	client.url = "http://127.0.0.1:1"
	if err := s.Put(context.Background(), "services", []any{service("b", "5")}); err == nil {
		t.Error("no error without a server")
	}
	client.url = server.URL
	again("the server is back", "PATCH "+path+"b\nDELETE "+path+"c")
}
