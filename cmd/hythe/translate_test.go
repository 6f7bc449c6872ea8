package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const translateInput = `
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: hythe}
spec: {controller: hythe.dev/ingress}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: shop, name: shop}
spec:
  ingressClassName: hythe
  tls: [{hosts: [shop.example.com], secretName: gone}]
  rules:
  - host: shop.example.com
    http: {paths: [{path: /cart, pathType: Prefix, backend: {service: {name: cart, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {namespace: shop, name: other}
spec:
  ingressClassName: nginx
  defaultBackend: {service: {name: web, port: {name: http}}}
`

// translated runs hythe translate on translateInput.
func translated(t *testing.T, input string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(path, []byte(input), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, notes bytes.Buffer
	cmd := newTranslateCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&notes)
	cmd.SetArgs(append([]string{"-f", path}, args...))
	err = cmd.Execute()
	return out.String(), notes.String(), err
}

func TestTranslateText(t *testing.T) {
	stdout, stderr, err := translated(t, translateInput, "--class", "nginx", "--assume-services", "--catch-all-namespace", "*")
	if err != nil {
		t.Fatal(err)
	}
	want := `HOST              PATH   MATCH   BACKEND        ENDPOINTS  CERTIFICATE   INGRESS
shop.example.com  /cart  prefix  shop/cart:80   none       default +308  shop/shop
shop.example.com  /      prefix  shop/web:http  none       default +308  shop/other
*                 /      prefix  shop/web:http  none       default       shop/other
`
	if stdout != want {
		t.Errorf("got\n%s\nwant\n%s", stdout, want)
	}
	if want := "Problems:\n  Ingress shop/shop: SecretNotFound: Secret shop/gone of type kubernetes.io/tls does not exist; shop.example.com gets the default certificate\n"; stderr != want {
		t.Errorf("got notes %q, want %q", stderr, want)
	}
}

// TestTranslateRedirect wants to see where requests are sent that no backend gets.
func TestTranslateRedirect(t *testing.T) {
	input := strings.ReplaceAll(translateInput, "metadata: {namespace: shop, name: shop}",
		"metadata: {namespace: shop, name: shop, annotations: {nginx.ingress.kubernetes.io/temporal-redirect: 'https://new.example.com$request_uri'}}")
	stdout, _, err := translated(t, input)
	if err != nil || !strings.Contains(stdout, "302 https://new.example.com{path}{query}  -") {
		t.Errorf("%v\n%s", err, stdout)
	}
}

func TestTranslateSkippedAndExitCode(t *testing.T) {
	_, stderr, err := translated(t, translateInput, "--strict")
	if want := "Ingress shop/other: class nginx has no IngressClass object; to see it anyway: --class nginx"; !strings.Contains(stderr, want) {
		t.Errorf("notes %q lack %q", stderr, want)
	}
	for _, c := range []struct {
		name, input string
		args        []string
		code        int
	}{
		{"problems", translateInput, nil, 0},
		{"problems, strict", translateInput, []string{"--strict"}, 2},
		{"unreadable", "kind: [", nil, 1},
		{"unreadable, strict", "kind: [", []string{"--strict"}, 1},
		{"nothing, strict", "", []string{"--strict"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err = translated(t, c.input, c.args...)
			code := 0
			if exit, ok := errors.AsType[exitError](err); ok {
				code = exit.code
			} else if err != nil {
				t.Fatal(err)
			}
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
		})
	}
}

func TestTranslateForPrograms(t *testing.T) {
	stdout, _, err := translated(t, translateInput, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got translation
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Routes) != 1 || got.Routes[0].Status != 503 || len(got.Problems) != 2 || len(got.Skipped) != 1 {
		t.Errorf("got %+v", got)
	}
	stdout, _, err = translated(t, translateInput, "-o", "envoy", "--assume-services")
	if err != nil {
		t.Fatal(err)
	}
	var resources map[string][]map[string]any
	if err := json.Unmarshal([]byte(stdout), &resources); err != nil {
		t.Fatal(err)
	}
	if len(resources["Cluster"]) != 2 || len(resources["VirtualHost"]) != 2 {
		t.Errorf("got %d clusters and %d virtual hosts", len(resources["Cluster"]), len(resources["VirtualHost"]))
	}
	if _, _, err := translated(t, translateInput, "-o", "xml"); err == nil {
		t.Error("an unknown output is no error")
	}
}
