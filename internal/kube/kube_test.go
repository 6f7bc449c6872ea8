package kube

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/kube/decode"
	"hythe.dev/hythe/internal/model"
)

const web = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
`

func load(t *testing.T, files map[string]string) *model.Snapshot {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoadCompletesObjects(t *testing.T) {
	s := load(t, map[string]string{
		"sub/web.yml":  web,
		"secret.json":  `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"x"},"stringData":{"k":"v"}}`,
		".hidden.yaml": "not: [valid",
		"notes.txt":    "not: [valid",
	})
	service := s.Services.Get(model.Key{Namespace: "default", Name: "web"})
	if service == nil || service.Spec.Type != corev1.ServiceTypeClusterIP || service.Spec.Ports[0].Protocol != corev1.ProtocolTCP {
		t.Errorf("Service = %+v", service)
	}
	secret := s.Secrets.Get(model.Key{Namespace: "x", Name: "a"})
	if secret == nil || string(secret.Data["k"]) != "v" || secret.Type != corev1.SecretTypeOpaque {
		t.Errorf("Secret = %+v", secret)
	}
	if len(s.Problems) != 0 {
		t.Errorf("problems: %v", s.Problems)
	}
}

func TestLoadReportsBadDocuments(t *testing.T) {
	for _, tt := range []struct{ name, content, want string }{
		{"not YAML", "a: [", "document 1"},
		{"no name", "apiVersion: v1\nkind: Service\nspec: {}\n", "without metadata.name"},
		{"wrong type", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 7}\n", "Service:"},
		{"old version", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n", "networking.k8s.io/v1"},
		{"bad base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: '%%hunter2%%'}\n", "base64"},
		{"no kind", "apiVersion: v1\nmetadata: {name: a}\n", "no kind"},
		{"twice", web + "\n---\n" + web, "Duplicate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := load(t, map[string]string{"bad.yaml": tt.content, "good.yaml": strings.ReplaceAll(web, "web", "good")})
			if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].String(), tt.want) {
				t.Fatalf("problems = %v, want one with %q", s.Problems, tt.want)
			}
			if strings.Contains(s.Problems[0].String(), "hunter2") {
				t.Errorf("the problem shows secret data: %v", s.Problems[0])
			}
			if s.Services.Get(model.Key{Namespace: "default", Name: "good"}) == nil {
				t.Error("the good file is not read")
			}
		})
	}
}

func TestListAndEndpoints(t *testing.T) {
	s := load(t, map[string]string{"all.yaml": `
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: n1}
  spec: {podCIDR: 10.244.1.0/24}
  status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  ports: [{name: http, port: 8080}]
  endpoints:
  - {addresses: [10.0.0.2], nodeName: n1, conditions: {ready: false, serving: true, terminating: true}}
  - {addresses: [10.0.0.1], nodeName: n1}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-2, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  ports: [{name: http, port: 8080}]
  endpoints:
  - {addresses: [10.0.0.1], nodeName: n1}
`})
	if n := s.Nodes["n1"]; n == nil || len(n.Addresses) != 1 || len(n.PodCIDRs) != 1 {
		t.Errorf("Node = %+v", n)
	}
	got := s.Endpoints.Get(model.Key{Namespace: "default", Name: "web"}).Port("http", corev1.ProtocolTCP)
	if len(got) != 2 || !got[0].Ready || got[1].Ready || !got[1].Serving || !got[1].Terminating {
		t.Errorf("endpoints = %+v", got)
	}
	if usable := model.Usable(got); len(usable) != 1 || usable[0].AddrPort.String() != "10.0.0.1:8080" {
		t.Errorf("usable = %+v", usable)
	}
}

// TestTypedList reads what the API server answers to a GET of many: items that do not repeat their kind.
func TestTypedList(t *testing.T) {
	s := load(t, map[string]string{"list.yaml": `
apiVersion: networking.k8s.io/v1
kind: IngressList
items:
- metadata: {name: a, namespace: x}
  spec: {}
`, "comment.yaml": "# nothing\n---\n# here\n"})
	if len(s.Problems) != 0 || s.Ingresses.Get(model.Key{Namespace: "x", Name: "a"}) == nil {
		t.Errorf("problems %v, Ingresses %v", s.Problems, s.Ingresses.SortedKeys())
	}
}

// TestFilesKeepsLastGoodState edits a watched folder: the state folder wins over the manifests folder, and a
// file that is broken for a moment loses nothing.
func TestFilesKeepsLastGoodState(t *testing.T) {
	manifests, state := t.TempDir(), t.TempDir()
	write(t, filepath.Join(manifests, "web.yaml"), web)
	snapshots := make(chan *model.Snapshot, 16)
	start := func(patience time.Duration) (stop func()) {
		f := NewFiles(manifests, state, slog.New(slog.DiscardHandler))
		f.patience = patience
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, func(s *model.Snapshot) { snapshots <- s }) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start(time.Minute)
	next := func() *model.Snapshot {
		t.Helper()
		select {
		case s := <-snapshots:
			return s
		case <-time.After(10 * time.Second):
			t.Fatal("no snapshot in 10 s")
			return nil
		}
	}
	key := model.Key{Namespace: "default", Name: "web"}
	if s := next(); s.Services.Get(key) == nil {
		t.Fatal("first snapshot lacks the Service")
	}
	write(t, filepath.Join(state, "services.yaml"), web+"  clusterIP: 10.96.0.1\n")
	write(t, filepath.Join(state, "services.yaml"), strings.Replace(web, "spec: {", "spec: {clusterIP: 10.96.0.1, ", 1))
	for s := next(); s.Services.Get(key).Spec.ClusterIP != "10.96.0.1"; s = next() {
	}
	rename(t, filepath.Join(manifests, "web.yaml"), web[:40])
	if s := next(); len(s.Problems) != 1 || s.Services.Get(key) == nil {
		t.Errorf("after half a file: problems %v, service %v", s.Problems, s.Services.Get(key))
	}
	if err := os.Remove(filepath.Join(state, "services.yaml")); err != nil {
		t.Fatal(err)
	}
	if s := next(); s.Services.Get(key) == nil || s.Services.Get(key).Spec.ClusterIP != "" {
		t.Errorf("after removal of the state: %v", s.Services.Get(key))
	}
	// Emptied, and filled a moment later.
	write(t, filepath.Join(manifests, "web.yaml"), "")
	time.Sleep(10 * settle)
	rename(t, filepath.Join(manifests, "web.yaml"), web)
	if s := next(); len(s.Problems) != 0 || s.Services.Get(key) == nil {
		t.Errorf("after a file was empty for a moment: problems %v, service %v", s.Problems, s.Services.Get(key))
	}
	stop()
	stop = start(10 * settle)
	defer stop()
	if s := next(); s.Services.Get(key) == nil {
		t.Error("the first snapshot after another start lacks the Service")
	}
	write(t, filepath.Join(manifests, "web.yaml"), "")
	if s := next(); s.Services.Get(key) != nil {
		t.Errorf("a file that stays empty keeps %v", s.Services.Get(key))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(web))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{kind: List, items: [1]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, problems := decode.Documents("fuzz", data)
		assemble([]document{{name: "fuzz", objects: objects, problems: problems}})
	})
}
