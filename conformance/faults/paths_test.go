package faults

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/kube"
)

// A guard is a host whose path /admin is protected, and where all else is served by the same application. The protection of
// each is another annotation, or another form of the path.
type guard struct {
	host, annotations string
	path, kind        string
}

func guards() []guard {
	const auth = "nginx.ingress.kubernetes.io/auth-type: basic\n    nginx.ingress.kubernetes.io/auth-secret: users"
	return []guard{
		{host: "allow.test", annotations: `nginx.ingress.kubernetes.io/whitelist-source-range: "10.9.9.9/32"`, path: "/admin", kind: "Prefix"},
		{host: "deny.test", annotations: `nginx.ingress.kubernetes.io/denylist-source-range: "0.0.0.0/0,::/0"`, path: "/admin", kind: "Prefix"},
		{host: "auth.test", annotations: auth, path: "/admin", kind: "Prefix"},
		{host: "exact.test", annotations: auth, path: "/admin", kind: "Exact"},
		{host: "deep.test", annotations: auth, path: "/app/admin", kind: "Prefix"},
		{host: "regex.test", annotations: auth + "\n    nginx.ingress.kubernetes.io/use-regex: \"true\"", path: "/admin(/|$)(.*)", kind: "ImplementationSpecific"},
		{host: "rewrite.test", annotations: auth + "\n    nginx.ingress.kubernetes.io/use-regex: \"true\"\n    nginx.ingress.kubernetes.io/rewrite-target: /admin/$2", path: "/admin(/|$)(.*)", kind: "ImplementationSpecific"},
		{host: "snippet.test", annotations: "nginx.ingress.kubernetes.io/configuration-snippet: return 403;", path: "/admin", kind: "Prefix"},
	}
}

func (g guard) manifest() string {
	ingress := func(name, annotations, path, kind string) string {
		return fmt.Sprintf(`---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %s-%s
  namespace: default
  annotations:
    a: b
    %s
spec:
  rules:
  - host: %s
    http:
      paths:
      - {path: '%s', pathType: %s, backend: {service: {name: app, port: {number: 80}}}}
`, strings.TrimSuffix(g.host, ".test"), name, annotations, g.host, path, kind)
	}
	return ingress("all", "", "/", "Prefix") + ingress("admin", g.annotations, g.path, g.kind)
}

const application = `apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app-1, namespace: default, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
ports: [{port: 8080, name: ""}]
endpoints: [{addresses: [10.1.0.9], conditions: {ready: true}}]
---
apiVersion: v1
kind: Secret
metadata: {name: users, namespace: default}
type: Opaque
data: {auth: USERS}
`

// forms are what clients may write for /admin, or for a path below it, so that some server takes it for that.
func forms(at string) []string {
	above, last := path.Split(at)
	above = strings.TrimSuffix(above, "/")
	out := []string{at, at + "/", at + "/x", at + "?x", at + "/?x", at + "/.", at + "/./", at + "//", "/" + at, "//" + at}
	for _, end := range []string{";", ";x", ";x=y", ";a;b", ";x/", ";x/y", ";x/..;/" + last, "%3b", "%3Bx", "%3bx/y", "/;x", "/.;x", "/%2e;x/y", "%00", "%00.css",
		"%20", "%09", "%0a", "%0d%0a", "\\", "\\x", "%5c", "%5Cx", "%2f", "%2Fx", "%252f", "#", "#x", "%23", "%3f", "/..;/" + last, ".", "..", "%2e", "/%2e",
		"\t", "\x7f", "\x80", "%c0%af", "%c0%2e", "%ef%bc%8f", "%u002f", "%", "%2", "%zz"} {
		out = append(out, at+end)
	}
	for _, before := range []string{"/x/..", "/x/../.", "/x/y/../..", "/x/..;", "/x/..;y", "/x/%2e%2e", "/x/%2E%2E", "/x/.%2e", "/x/%2e.", "/x/%2e%2e;", "/x/%2e%2e;y=1",
		"/x/..%3b", "/x/%2e%2e%3b", "/x%2f..", "/x%2F..", "/x%5c..", "/x\\..", "/x/..%2f", "/x/..%5c", "/x/..\\", "/.", "/./.", "/%2e", "/%2E", "/.;", "/;", "/;x", "/;x/;y",
		"/%3bx", "//", "/\\", "/%5c", "/%2f", "/%2F", "/x//..", "/x/%252e%252e", "/x/..%00", "/%00", "/x;/..", "/x;y/..", "/x;/..;/", "http://a.test", "/x/%c0%ae%c0%ae", "/x/..%c0%af"} {
		out = append(out, above+before+"/"+last, above+before+"/"+last+"/x", before+at)
	}
	for i := range last { // each letter escaped, in both cases of hex
		escaped := fmt.Sprintf("%s/%s%%%02X%s", above, last[:i], last[i], last[i+1:])
		out = append(out, escaped, strings.ToLower(escaped), escaped+";x", escaped+"/x")
	}
	if above != "" {
		for _, middle := range []string{";x", ";", "%3bx", "/;x", "/.", "/.;x", "//", "/;x/.", "%2f", "\\", "/y/.."} {
			out = append(out, above+middle+"/"+last, above+middle+"/"+last+";x")
		}
	}
	return out
}

// reads are how servers read the path of a request before they look what to do: as it is, with parameters dropped before or after
// it is unescaped, with backslashes for slashes; and each of them normalized.
func reads(target string) []string {
	target, _, _ = strings.Cut(target, "?")
	var out []string
	for _, first := range []string{target, dropParameters(target), unescape(target), dropParameters(unescape(target)), unescape(dropParameters(target))} {
		for _, p := range []string{first, strings.ReplaceAll(first, `\`, "/")} {
			p, _, _ = strings.Cut(p, "\x00")
			out = append(out, path.Clean("/"+p))
		}
	}
	return out
}

func dropParameters(p string) string {
	elements := strings.Split(p, "/")
	for i, e := range elements {
		elements[i], _, _ = strings.Cut(e, ";")
	}
	return strings.Join(elements, "/")
}

// unescape leaves what is no escape as it is.
func unescape(p string) string {
	var out strings.Builder
	for i := 0; i < len(p); i++ {
		var c byte
		if n, _ := fmt.Sscanf(p[i:min(len(p), i+3)], "%%%02x", &c); n == 1 && i+2 < len(p) {
			out.WriteByte(c)
			i += 2
			continue
		}
		out.WriteByte(p[i])
	}
	return out.String()
}

// get asks for a target as it stands.
func get(to netip.AddrPort, host, target string) (status int, body string, err error) {
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, host); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// TestConfusingPaths asks for a protected path in all forms that a server may take for it. Whatever the pod gets was not for
// the protected path, in any server's reading.
func TestConfusingPaths(t *testing.T) {
	r := envoytest.New(t, nil)
	var manifests strings.Builder
	manifests.WriteString(strings.Replace(application, "USERS", base64.StdEncoding.EncodeToString([]byte("u:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=")), 1))
	for _, g := range guards() {
		manifests.WriteString(g.manifest())
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshot, err := kube.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := envoytest.Pair(t, "any")
	config, problems := gateway.Build(snapshot, gateway.Settings{WithoutClass: true, DefaultChain: chain, DefaultKey: key})
	for _, p := range append(problems, snapshot.Problems...) {
		t.Logf("problem: %s", p)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { fmt.Fprint(w, req.RequestURI) }))
	t.Cleanup(s.Close)
	for i := range config.EndpointSets {
		config.EndpointSets[i].Addresses = []netip.AddrPort{netip.MustParseAddrPort(s.Listener.Addr().String())}
	}
	if _, status := r.Set(t, config); len(status.Refused) > 0 {
		t.Fatalf("Envoy refuses %v", status.Refused)
	}
	for _, g := range guards() {
		t.Run(strings.TrimSuffix(g.host, ".test"), func(t *testing.T) {
			at, _, _ := strings.Cut(g.path, "(")
			until(t, "the host is served", func() bool {
				status, _, err := get(r.Settings.HTTP, g.host, "/")
				return err == nil && status == 200
			})
			statuses := map[int]int{}
			for _, target := range forms(at) {
				status, got, err := get(r.Settings.HTTP, g.host, target)
				if err != nil {
					t.Errorf("%q: %v", target, err)
					continue
				}
				statuses[status]++
				if status != http.StatusOK {
					continue
				}
				for _, read := range reads(got) {
					if g.kind == "Exact" && strings.HasSuffix(dropParameters(strings.TrimSuffix(got, "?x")), "/") {
						continue // the Ingress API calls "/admin/" another path
					}
					if read == at || strings.HasPrefix(read, at+"/") && g.kind != "Exact" {
						t.Errorf("%q: the pod got %q, which some server reads as %q", target, got, read)
						break
					}
				}
			}
			t.Logf("%d forms, answers %v", len(forms(at)), statuses)
		})
	}
}
