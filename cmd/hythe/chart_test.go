package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// TestChartGone says that an uninstall leaves neither Reports nor the controllers' Lease, also where they are gone already.
func TestChartGone(t *testing.T) {
	for name, status := range map[string]int{"they are there": http.StatusOK, "they are gone": http.StatusNotFound} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var deleted []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if r.Method == http.MethodGet {
					fmt.Fprint(w, `{"kind": "PodList", "apiVersion": "v1", "items": []}`)
					return
				}
				mu.Lock()
				deleted = append(deleted, r.Method+" "+r.URL.Path)
				mu.Unlock()
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "code": %d, "reason": "NotFound"}`, status)
			}))
			defer server.Close()
			kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
			text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a}}]\nclusters: [{name: a, cluster: {server: %q}}]\n", server.URL)
			if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := newCommand()
			cmd.SetArgs([]string{"chart", "gone", "--kubeconfig", kubeconfig, "--namespace", "edge", "--selector", "a=b"})
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			slices.Sort(deleted)
			want := []string{"DELETE /apis/coordination.k8s.io/v1/namespaces/edge/leases/hythe-controller", "DELETE /apis/hythe.dev/v1alpha1/reports"}
			if !slices.Equal(deleted, want) {
				t.Errorf("deleted %q, want %q", deleted, want)
			}
		})
	}
}
