package gateway

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// TestAuthGrants names auth servers outside of the namespace, without and with an administrator's grant.
func TestAuthGrants(t *testing.T) {
	for url, grant := range map[string]v1alpha1.GrantTo{
		"http://auth.login.svc.cluster.local/x": {Kind: v1alpha1.GrantService, Namespace: "login", Name: "auth"},
		"https://sso.example.org/auth":          {Kind: v1alpha1.GrantURL, Name: "https://sso.example.org"},
		"http://sso.example.org:8080/auth":      {Kind: v1alpha1.GrantURL, Name: "http://sso.example.org:8080"},
		"http://169.254.169.254/latest":         {Kind: v1alpha1.GrantURL, Name: "http://169.254.169.254"},
	} {
		for _, granted := range []bool{false, true} {
			var list []v1alpha1.Grant
			if granted {
				list = []v1alpha1.Grant{{From: []string{"shop"}, To: []v1alpha1.GrantTo{grant}}}
			} else { // what is near, and not the same
				near := grant
				near.Name += "x"
				list = []v1alpha1.Grant{{From: []string{"shop"}, To: []v1alpha1.GrantTo{near}}, {From: []string{"other"}, To: []v1alpha1.GrantTo{grant}}}
			}
			s := &model.Snapshot{Services: model.ObjectsOf(map[model.Key]*corev1.Service{{Namespace: "login", Name: "auth"}: {
				Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
			}})}
			ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{
				"nginx.ingress.kubernetes.io/auth-url": url,
			}}}
			r, _ := newRequest(model.Key{Namespace: "shop", Name: "web"}, ing, false, classConfig{grants: grants{list: list, from: "edge"}})
			x := &index{snapshot: s, byHost: map[string][]*request{}}
			x.settleAuth([]*request{r})
			table, _ := x.authTable()
			if _, ok := table["shop/web"]; ok != granted || granted == (r.refused != nil) {
				t.Errorf("%s, granted %v: %v, %+v", url, granted, table, r.refused)
			}
			if r.refused != nil && (!strings.Contains(r.refused.message, "auth-url") || !strings.Contains(r.refused.message, "GatewayConfig edge")) {
				t.Errorf("%s: no remedy in %q", url, r.refused.message)
			}
		}
	}
}
