package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/kube"
)

// referencesWorld has what Ingresses of namespace shop refer to in their own namespace and in others.
const referencesWorld = `
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: hythe}
spec: {controller: hythe.dev/ingress, parameters: {apiGroup: hythe.dev, kind: GatewayConfig, name: edge, scope: Cluster}}
---
apiVersion: hythe.dev/v1alpha1
kind: GatewayConfig
metadata: {name: edge}
spec:
  grants: [%s]
---
%s`

const referencesIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: web
  annotations: {%s}
spec:
  ingressClassName: hythe
  tls: [%s]
  rules:
  - host: a.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
`

// A reference is a kind of reference: %s stands for the namespace with a slash, or for nothing where it may be left out.
type reference struct {
	annotations, tls string
	// grant is what allows it.
	grant string
	// served says that paths are served without it, which then lacks what shows.
	served bool
	shows  string
}

var references = map[string]reference{
	"tls Secret": {tls: "{hosts: [a.example.com], secretName: '%s/pair'}", grant: "{kind: Secret, namespace: %s, name: pair}", served: true, shows: "host a.example.com certificate=%s/pair"},
	"auth-secret": {annotations: "nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: %s/users",
		grant: "{kind: Secret, namespace: %s, name: users}"},
	"proxy-ssl-secret": {annotations: `nginx.ingress.kubernetes.io/backend-protocol: HTTPS, nginx.ingress.kubernetes.io/proxy-ssl-verify: "on", nginx.ingress.kubernetes.io/proxy-ssl-name: web, nginx.ingress.kubernetes.io/proxy-ssl-secret: %s/pair`,
		grant: "{kind: Secret, namespace: %s, name: pair}"},
	"auth-tls-secret": {annotations: "nginx.ingress.kubernetes.io/auth-tls-secret: %s/pair", grant: "{kind: Secret, namespace: %s}"},
	"custom-headers": {annotations: "nginx.ingress.kubernetes.io/custom-headers: %s/headers",
		grant: "{kind: ConfigMap, namespace: %s, name: headers}"},
	"auth-url Service": {annotations: "nginx.ingress.kubernetes.io/auth-url: 'http://web.%s.svc/auth'", grant: "{kind: Service, namespace: %s, name: web}"},
	"mirror-target": {annotations: "nginx.ingress.kubernetes.io/mirror-target: 'http://web.%s.svc.cluster.local$request_uri'",
		grant: "{kind: Service, namespace: %s, name: web}", served: true, shows: "%s/web"},
}

// TestReferences: what is of the own namespace may be referred to, what is another's only by a grant; of all else the paths
// are closed, or do without, and a Problem says whom to ask.
func TestReferences(t *testing.T) {
	var objects strings.Builder
	for _, namespace := range []string{"shop", "other"} {
		chain, key := pair(t, "a.example.com")
		fmt.Fprintf(&objects, `
apiVersion: v1
kind: Service
metadata: {namespace: %[1]s, name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Secret
metadata: {namespace: %[1]s, name: users}
stringData: {auth: "ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {namespace: %[1]s, name: pair}
stringData:
  tls.crt: %[2]q
  tls.key: %[3]q
  ca.crt: %[2]q
---
apiVersion: v1
kind: ConfigMap
metadata: {namespace: %[1]s, name: headers}
data: {X-From: %[1]s}
---
`, namespace, chain, key)
	}
	for name, ref := range references {
		for _, c := range []struct {
			name, namespace, grant string
			allowed                bool
		}{
			{"own", "shop", "", true},
			{"another's", "other", "", false},
			{"granted", "other", "{from: [shop], to: [GRANT]}", true},
			{"granted to all", "other", `{from: ["*"], to: [GRANT]}`, true},
			{"granted to others", "other", "{from: [garden], to: [GRANT]}", false},
			{"granted of a third", "other", "{from: [shop], to: [THIRD]}", false},
			{"granted another kind", "other", "{from: [shop], to: [{kind: Host, namespace: other}]}", false},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				fill := func(text, namespace string) string { return strings.ReplaceAll(text, "%s", namespace) }
				grant := strings.ReplaceAll(strings.ReplaceAll(c.grant, "GRANT", fill(ref.grant, "other")), "THIRD", fill(ref.grant, "third"))
				got := buildText(t, fmt.Sprintf(referencesWorld, grant, objects.String())+
					fmt.Sprintf(referencesIngress, fill(ref.annotations, c.namespace), fill(ref.tls, c.namespace)))
				refused := strings.Contains(got, "ReferenceNotAllowed") && strings.Contains(got, "spec.grants of GatewayConfig edge")
				if refused == c.allowed || strings.Contains(got, "ReferenceNotAllowed") == c.allowed {
					t.Errorf("allowed should be %v:\n%s", c.allowed, got)
				}
				if closed := strings.Contains(got, "prefix / status 503 shop/web"); closed == (c.allowed || ref.served) {
					t.Errorf("closed is %v:\n%s", closed, got)
				}
				if ref.shows != "" && strings.Contains(strings.SplitN(got, "certificate default", 2)[0], fill(ref.shows, c.namespace)) != c.allowed &&
					c.namespace == "other" {
					t.Errorf("%s should be %v:\n%s", fill(ref.shows, c.namespace), c.allowed, got)
				}
			})
		}
	}
}

// buildText is what is built of a manifest.
func buildText(t *testing.T, manifest string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshot, err := kube.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range snapshot.Problems {
		t.Errorf("read: %s", p)
	}
	return describe(snapshot, gateway.Settings{})
}
