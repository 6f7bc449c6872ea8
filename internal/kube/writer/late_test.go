package writer

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// TestIngressKeepsClaim checks that an address of the gateways stays claimed as long as the status of an Ingress names it:
// without its claim nobody would know any more that it is Hythe's.
func TestIngressKeepsClaim(t *testing.T) {
	ingress := &networkingv1.Ingress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"},
	}
	ingress.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "203.0.113.10"}}
	gateway := model.Key{Namespace: "hythe-system", Name: "gateway"}
	claim := &v1alpha1.AddressClaim{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: "AddressClaim"}, ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.10"}}
	claim.Spec.Address, claim.Spec.Services = "203.0.113.10", []v1alpha1.ServiceRef{{Namespace: gateway.Namespace, Name: gateway.Name}}
	f := &fakeServer{objects: map[string]any{
		"/apis/networking.k8s.io/v1/namespaces/n/ingresses/a": ingress,
		"/apis/hythe.dev/v1alpha1/addressclaims/203.0.113.10": claim,
	}}
	refused := true
	f.refuse = func(r *http.Request) bool { return refused && r.Method == http.MethodPut }
	s := &model.Snapshot{
		Ingresses: model.ObjectsOf(map[model.Key]*networkingv1.Ingress{{Namespace: "n", Name: "a"}: ingress}),
		Claims:    map[string]*v1alpha1.AddressClaim{"203.0.113.10": claim},
	}
	d := Desired{GatewayService: gateway, Ingresses: map[model.Key][]networkingv1.IngressLoadBalancerIngress{{Namespace: "n", Name: "a"}: {{IP: "203.0.113.11"}}}}
	w := f.writer(t)
	if _, err := w.Set(t.Context(), s, d); err == nil {
		t.Error("no error although the status could not be written")
	}
	if got := f.written(); strings.Contains(got, "DELETE") {
		t.Errorf("the claim was deleted:\n%s", got)
	}
	refused = false
	if _, err := w.Set(t.Context(), s, d); err != nil {
		t.Fatal(err)
	}
	if got := f.written(); !strings.HasSuffix(got, "DELETE /apis/hythe.dev/v1alpha1/addressclaims/203.0.113.10") {
		t.Errorf("written:\n%s\nwant the status and then the end of the claim", got)
	}
}

// TestNoClaimNoFinalizer checks that a Service whose address somebody else got gets no finalizer: nothing would tell that it is
// Hythe's when the Service changes its type.
func TestNoClaimNoFinalizer(t *testing.T) {
	key := model.Key{Namespace: "n", Name: "a"}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}}
	others := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.10"}}
	others.Spec.Address, others.Spec.Services = "203.0.113.10", []v1alpha1.ServiceRef{{Namespace: "n", Name: "b"}}
	f := &fakeServer{objects: map[string]any{"/api/v1/namespaces/n/services/a": service, "/apis/hythe.dev/v1alpha1/addressclaims/203.0.113.10": others}}
	claim := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.10"}}
	claim.Spec.Address, claim.Spec.Services = "203.0.113.10", []v1alpha1.ServiceRef{{Namespace: "n", Name: "a"}}
	d := Desired{
		Claims: []*v1alpha1.AddressClaim{claim}, Finalizers: map[model.Key]bool{key: true},
		Services: map[model.Key][]corev1.LoadBalancerIngress{key: {{IP: "203.0.113.10"}}},
	}
	problems, err := f.writer(t).Set(t.Context(), &model.Snapshot{Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: service})}, d)
	if err != nil || len(problems) != 1 || problems[0].Reason != ReasonClaimedByAnother {
		t.Errorf("problems %v, error %v", problems, err)
	}
	if got := f.written(); strings.Contains(got, "PUT") {
		t.Errorf("written:\n%s", got)
	}
}

// TestClaimNotWritten has an API server that refuses claims for a while: what clients use meanwhile stays, in the status of
// Service and Ingress and as a claim.
func TestClaimNotWritten(t *testing.T) {
	key := model.Key{Namespace: "n", Name: "a"}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.10"}}
	ingress := &networkingv1.Ingress{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "i"}}
	ingress.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "203.0.113.10"}}
	claimOf := func(address string) *v1alpha1.AddressClaim {
		c := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: address}}
		c.Spec.Address, c.Spec.Services = address, []v1alpha1.ServiceRef{{Namespace: "n", Name: "a"}}
		return c
	}
	refused := true
	f := &fakeServer{objects: map[string]any{
		"/api/v1/namespaces/n/services/a": service, "/apis/networking.k8s.io/v1/namespaces/n/ingresses/i": ingress,
		"/apis/hythe.dev/v1alpha1/addressclaims/203.0.113.10": claimOf("203.0.113.10"),
	}}
	f.refuse = func(r *http.Request) bool { return refused && strings.HasSuffix(r.URL.Path, "addressclaims") }
	s := &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: service}), Claims: map[string]*v1alpha1.AddressClaim{"203.0.113.10": claimOf("203.0.113.10")},
		Ingresses: model.ObjectsOf(map[model.Key]*networkingv1.Ingress{{Namespace: "n", Name: "i"}: ingress}),
	}
	d := Desired{
		Claims: []*v1alpha1.AddressClaim{claimOf("203.0.113.20")}, GatewayService: key,
		Services:  map[model.Key][]corev1.LoadBalancerIngress{key: {{IP: "203.0.113.20"}}},
		Ingresses: map[model.Key][]networkingv1.IngressLoadBalancerIngress{{Namespace: "n", Name: "i"}: {{IP: "203.0.113.20"}}},
	}
	w := f.writer(t)
	if _, err := w.Set(t.Context(), s, d); err == nil {
		t.Error("no error although the claim could not be written")
	}
	if got := f.written(); strings.Contains(got, "PUT") || strings.Contains(got, "DELETE") {
		t.Errorf("written without the claim:\n%s", got)
	}
	refused = false
	if _, err := w.Set(t.Context(), s, d); err != nil {
		t.Fatal(err)
	}
	if got := f.written(); strings.Count(got, "PUT") != 2 || !strings.Contains(got, "ingresses/i/status\nDELETE /apis/hythe.dev/v1alpha1/addressclaims/203.0.113.10") {
		t.Errorf("written:\n%s\nwant both status and then the end of the old claim", got)
	}
}

// TestYieldedFinalizer checks whose finalizer is taken off when another controller serves a Service from now on.
func TestYieldedFinalizer(t *testing.T) {
	key := model.Key{Namespace: "n", Name: "a"}
	fields := func(manager string) metav1.ManagedFieldsEntry {
		raw := []byte(`{"f:metadata":{"f:finalizers":{".":{},"v:\"service.kubernetes.io/load-balancer-cleanup\"":{}}}}`)
		return metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, Subresource: "status", FieldsV1: &metav1.FieldsV1{Raw: raw}}
	}
	for manager, want := range map[string]string{"hythe": "PUT /api/v1/namespaces/n/services/a/status", "cloud-controller-manager": ""} {
		service := &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", Finalizers: []string{v1alpha1.CleanupFinalizer}, ManagedFields: []metav1.ManagedFieldsEntry{fields(manager)}},
		}
		ingress := []corev1.LoadBalancerIngress{{IP: "198.51.100.9"}}
		service.Status.LoadBalancer.Ingress = ingress
		f := &fakeServer{objects: map[string]any{"/api/v1/namespaces/n/services/a": service}}
		d := Desired{
			Services: map[model.Key][]corev1.LoadBalancerIngress{key: ingress}, Finalizers: map[model.Key]bool{key: true}, Yielded: []model.Key{key},
		}
		if _, err := f.writer(t).Set(t.Context(), &model.Snapshot{Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: service})}, d); err != nil {
			t.Fatal(err)
		}
		if got := f.written(); got != want {
			t.Errorf("set by %s: written %q, want %q", manager, got, want)
		}
	}
}
