package client

import (
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"hythe.dev/hythe/internal/testenv"
)

// TestServers asks a list of API servers of which some are dead, each in another way.
func TestServers(t *testing.T) {
	var asked atomic.Int64
	var starting atomic.Bool
	alive := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if starting.Load() {
			http.Error(w, "starts", http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"`+r.Method+"-"+map[bool]string{true: "body"}[len(body) > 0]+`"}}`)
	}))
	defer alive.Close()
	refused := testenv.FreeAddress(t).String()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: alive.Certificate().Raw})
	for name, urls := range map[string][]string{
		"refused first": {"https://" + refused, alive.URL},
		"refused last":  {alive.URL, "https://" + refused},
		"silent first":  {"https://" + silent.Addr().String(), alive.URL},
	} {
		t.Run(name, func(t *testing.T) {
			config := &rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{CAData: roots}}
			if err := Servers(config, urls); err != nil {
				t.Fatal(err)
			}
			c, err := Connect(config, 2*time.Second) // a shorter one ends good connections where the machine is busy
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			api := c.ByGV[corev1.SchemeGroupVersion]
			var got corev1.Namespace
			if err := api.Get().Resource("namespaces").Name("a").Do(ctx).Into(&got); err != nil || got.Name != "GET-" {
				t.Fatalf("GET: %q, %v", got.Name, err)
			}
			if err := api.Post().Resource("namespaces").Body(&corev1.Namespace{}).Do(ctx).Into(&got); err != nil || got.Name != "POST-body" {
				t.Errorf("POST: %q, %v", got.Name, err)
			}
		})
	}
	t.Run("the one that answers is kept", func(t *testing.T) {
		var dials atomic.Int64
		config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: roots}}
		config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == refused {
				dials.Add(1)
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		if err := Servers(config, []string{"https://" + refused, alive.URL}); err != nil {
			t.Fatal(err)
		}
		c, err := Connect(config, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := c.ByGV[corev1.SchemeGroupVersion].Get().Resource("namespaces").Name("a").Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if n := dials.Load(); n != 1 {
			t.Errorf("the dead server was tried %d times", n)
		}
	})
	t.Run("one that starts is passed over", func(t *testing.T) {
		starting.Store(true)
		config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: roots}}
		if err := Servers(config, []string{alive.URL, "https://" + refused}); err != nil {
			t.Fatal(err)
		}
		c, err := Connect(config, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := asked.Load()
		for range 2 {
			_ = c.ByGV[corev1.SchemeGroupVersion].Get().Resource("namespaces").Name("a").MaxRetries(0).Do(t.Context()).Error()
		}
		starting.Store(false)
		if asked.Load() == before {
			t.Error("nobody was asked")
		}
		if err := c.ByGV[corev1.SchemeGroupVersion].Get().Resource("namespaces").Name("a").Do(t.Context()).Error(); err != nil {
			t.Errorf("after its start: %v", err)
		}
	})
	t.Run("all dead", func(t *testing.T) {
		config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: roots}}
		if err := Servers(config, []string{"https://" + refused, "https://" + testenv.FreeAddress(t).String()}); err != nil {
			t.Fatal(err)
		}
		c, err := Connect(config, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = c.ByGV[corev1.SchemeGroupVersion].Get().Resource("namespaces").Name("a").Do(t.Context()).Error()
		if err == nil || strings.Count(err.Error(), "refused") != 2 {
			t.Errorf("error %v, want one that names both", err)
		}
	})
	for _, text := range []string{"http://a:1", "a:1", "https://", "https://a/path", "https://a:b:c"} {
		if err := Servers(&rest.Config{}, []string{text}); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
