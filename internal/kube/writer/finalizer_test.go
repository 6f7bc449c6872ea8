package writer

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
)

// TestFinalizerWithAddress checks that the finalizer and the address are one write, and that it is written again when
// somebody took it off.
func TestFinalizerWithAddress(t *testing.T) {
	key := model.Key{Namespace: "n", Name: "a"}
	for _, test := range []struct {
		name            string
		finalizers      []string
		want, wantWrite bool
	}{
		{"missing", nil, true, true},
		{"there", []string{"theirs", v1alpha1.CleanupFinalizer}, true, false},
		{"to be taken off", []string{v1alpha1.CleanupFinalizer}, false, true},
		{"others alone", []string{"theirs"}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", Finalizers: test.finalizers}}
			service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
			f := &fakeServer{objects: map[string]any{"/api/v1/namespaces/n/services/a": service}}
			s := &model.Snapshot{Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: service})}
			d := Desired{
				Services:   map[model.Key][]corev1.LoadBalancerIngress{key: {{IP: "203.0.113.1"}}},
				Finalizers: map[model.Key]bool{key: test.want},
			}
			if _, err := f.writer(t).Set(t.Context(), s, d); err != nil {
				t.Fatal(err)
			}
			if got := f.written() == "PUT /api/v1/namespaces/n/services/a/status"; got != test.wantWrite {
				t.Errorf("written %t, want %t", got, test.wantWrite)
			}
		})
	}
}

func finalizers(s *kubetest.Server, name string) []string {
	return s.Get("v1", "Service", "default", name).GetFinalizers()
}

// TestFinalizer deletes Services under a real API server: what another controller holds stays as it is, and the
// address of ours is free when the Service is gone.
func TestFinalizer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	bindRoles(s)
	foreign := strings.ReplaceAll(loadBalancer("foreign"), "hythe.dev/lb", "example.com/lb")
	s.Apply(strings.ReplaceAll(foreign, "{name: foreign}", "{name: foreign, finalizers: [service.kubernetes.io/load-balancer-cleanup]}"))
	s.Do(http.MethodPatch, kubetest.Path("v1", "Service", "default", "foreign")+"/status", []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.9"}]}}}`))
	before := s.Get("v1", "Service", "default", "foreign").GetResourceVersion()
	for _, name := range []string{"gone", "changed"} {
		s.Apply(loadBalancer(name))
	}
	var sets atomic.Int64
	stop := runController(t, s.ConfigFor("hythe-controller"), &sets)
	for _, name := range []string{"gone", "changed"} {
		eventually(t, "an address of "+name, func() bool { return serviceIP(s, name) != "" })
		if !slices.Contains(finalizers(s, name), v1alpha1.CleanupFinalizer) {
			t.Errorf("%s has an address and no finalizer", name)
		}
	}
	for name, own := range map[string]bool{"changed": true, "foreign": false} {
		var live corev1.Service
		code, body := s.Do(http.MethodGet, kubetest.Path("v1", "Service", "default", name), nil)
		if err := json.Unmarshal(body, &live); code != http.StatusOK || err != nil || ownFinalizer(&live) != own {
			t.Errorf("Hythe set the finalizer of %s: %v, want %v (%d, %v)", name, !own, own, code, err)
		}
	}
	exists := func(kind, namespace, name string) bool {
		version := map[string]string{"Service": "v1", "AddressClaim": v1alpha1.APIVersion}[kind]
		code, _ := s.Do(http.MethodGet, kubetest.Path(version, kind, namespace, name), nil)
		return code == http.StatusOK
	}

	stop() // a controller that is away
	ip, other := serviceIP(s, "gone"), serviceIP(s, "changed")
	s.Delete("v1", "Service", "default", "gone")
	if !exists("Service", "default", "gone") {
		t.Error("a Service went without its controller")
	}
	s.Do(http.MethodPatch, kubetest.Path("v1", "Service", "default", "changed"), []byte(`{"spec":{"type":"ClusterIP","loadBalancerClass":null}}`))
	sets.Store(0)
	runController(t, s.ConfigFor("hythe-controller"), &sets)
	eventually(t, "the end of Service gone", func() bool { return !exists("Service", "default", "gone") })
	if exists("AddressClaim", "", ip) {
		t.Error("the Service is gone and its address is still claimed")
	}
	eventually(t, "no finalizer on the Service of type ClusterIP", func() bool { return len(finalizers(s, "changed")) == 0 })
	eventually(t, "no claim of the Service of type ClusterIP", func() bool { return !exists("AddressClaim", "", other) })
	s.Delete("v1", "Service", "default", "foreign")
	quiet(t, s)
	now := s.Get("v1", "Service", "default", "foreign")
	if !slices.Contains(now.GetFinalizers(), v1alpha1.CleanupFinalizer) || len(now.GetManagedFields()) == 0 {
		t.Error("the finalizer of another controller was taken off")
	}
	for _, m := range now.GetManagedFields() {
		if m.Manager == "hythe" {
			t.Errorf("Hythe wrote a Service of another class (resource version %s before)", before)
		}
	}
}
