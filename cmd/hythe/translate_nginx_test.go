package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const nginxInput = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: shop
  annotations:
    nginx.ingress.kubernetes.io/app-root: /shop
    nginx.ingress.kubernetes.io/canary-weight: "10"
    nginx.ingress.kubernetes.io/proxy-buffering: "on"
    nginx.ingress.kubernetes.io/proxy-read-timeout: "60"
    nginx.ingress.kubernetes.io/limit-connections: "5"
    nginx.ingress.kubernetes.io/permanent-redirect-code: "200"
    nginx.ingress.kubernetes.io/websocket-services: web
    example.com/team: web
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: admin
  annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: everybody}
spec:
  ingressClassName: nginx
  tls: [{hosts: [admin.example.com], secretName: gone}]
  rules:
  - host: admin.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: shop, name: plain}
spec:
  ingressClassName: nginx
  rules:
  - host: plain.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: shop, name: other}
spec: {ingressClassName: traefik, defaultBackend: {service: {name: web, port: {number: 80}}}}
`

func TestTranslateFromNginx(t *testing.T) {
	stdout, stderr, err := translated(t, nginxInput, "--from", "nginx", "--assume-services")
	if err != nil {
		t.Fatal(err)
	}
	const want = `Ingress shop/admin whitelist-source-range closed
Ingress shop/admin SecretNotFound problem
Ingress shop/plain - kept
Ingress shop/shop app-root kept
Ingress shop/shop canary-weight kept
Ingress shop/shop limit-connections refused
Ingress shop/shop permanent-redirect-code refused
Ingress shop/shop proxy-buffering not needed
Ingress shop/shop proxy-read-timeout changed
Ingress shop/shop websocket-services refused
`
	var got strings.Builder
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	for _, line := range lines[1:] {
		columns := strings.Split(line, "  ")
		var words []string
		for _, c := range columns {
			if c = strings.TrimSpace(c); c != "" && len(words) < 3 {
				words = append(words, c)
			}
		}
		got.WriteString(strings.Join(words, " ") + "\n")
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s\nof\n%s", got.String(), want, stdout)
	}
	for _, part := range []string{
		"OBJECT", `"everybody" is neither an address nor a range`, "prefix / answers 503", `"200" is not 301`,
		"ingress-nginx has no such annotation", "use limit-rps", "Secret shop/gone",
	} {
		if !strings.Contains(stdout, part) {
			t.Errorf("%q is not in\n%s", part, stdout)
		}
	}
	if want := "2 kept, 1 changed, 1 not needed, 3 refused, 1 closed, 1 problem\nLeft out: Ingress shop/other: class traefik has no IngressClass object\n"; stderr != want {
		t.Errorf("got notes %q, want %q", stderr, want)
	}
}

func TestTranslateFromNginxJSON(t *testing.T) {
	stdout, _, err := translated(t, nginxInput, "--from", "nginx", "-o", "json", "--strict", "--assume-services")
	var exit exitError
	if !errors.As(err, &exit) || exit.code != 2 {
		t.Errorf("error %v, want exit code 2: something is refused", err)
	}
	var m migration
	if err := json.Unmarshal([]byte(stdout), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Objects) != 3 || len(m.Skipped) != 1 || m.Summary[refused] != 3 {
		t.Fatalf("got %+v", m)
	}
	first := m.Objects[0].Settings[0]
	if first.Setting != "nginx.ingress.kubernetes.io/whitelist-source-range" || first.Value != "everybody" || first.Verdict != closed {
		t.Errorf("got %+v", first)
	}
	nothing := strings.ReplaceAll(nginxInput, "ingressClassName: nginx", "ingressClassName: haproxy")
	if stdout, _, err := translated(t, nothing, "--from", "nginx", "--strict"); err != nil || !strings.Contains(stdout, "No Ingress of ingress-nginx") {
		t.Errorf("got %v\n%s", err, stdout)
	}
	for _, args := range [][]string{{"--from", "haproxy"}, {"--from", "nginx", "-o", "envoy"}, {"--from", "nginx", "-o", "csv"}} {
		if _, _, err := translated(t, nginxInput, args...); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	cmd := newTranslateCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(nil)
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "name manifests") {
		t.Errorf("without arguments: %v", err)
	}
}
