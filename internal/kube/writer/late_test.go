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
		Ingresses: map[model.Key]*networkingv1.Ingress{{Namespace: "n", Name: "a"}: ingress},
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

// TestNoClaimNoFinalizer checks that a Service whose claim cannot be written gets no finalizer: nothing would tell that it is
// Hythe's when the Service changes its type.
func TestNoClaimNoFinalizer(t *testing.T) {
	key := model.Key{Namespace: "n", Name: "a"}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}}
	f := &fakeServer{objects: map[string]any{"/api/v1/namespaces/n/services/a": service}}
	f.refuse = func(r *http.Request) bool { return r.Method == http.MethodPost }
	claim := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.10"}}
	claim.Spec.Address, claim.Spec.Services = "203.0.113.10", []v1alpha1.ServiceRef{{Namespace: "n", Name: "a"}}
	d := Desired{
		Claims: []*v1alpha1.AddressClaim{claim}, Finalizers: map[model.Key]bool{key: true},
		Services: map[model.Key][]corev1.LoadBalancerIngress{key: {{IP: "203.0.113.10"}}},
	}
	if _, err := f.writer(t).Set(t.Context(), &model.Snapshot{Services: map[model.Key]*corev1.Service{key: service}}, d); err == nil {
		t.Error("no error although the claim could not be written")
	}
	if got := f.written(); strings.Contains(got, "PUT") {
		t.Errorf("written:\n%s", got)
	}
}
