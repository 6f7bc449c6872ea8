package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/check"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/testenv"
)

// A lookRig is a lab of the examples, with secrets in all places where there could be some.
type lookRig struct {
	t     *testing.T
	hythe string
	lab   lab.Lab
}

// The secrets of the rig, each in its own place.
const (
	secretKey        = "kX93-private-key-of-a-pod-Zq7"
	secretPassword   = "pW41-password-in-a-secret-Zq7"
	secretAnnotation = "aN52-token-in-an-annotation-Zq7"
	secretHeader     = "hD63-bearer-in-a-header-Zq7"
	secretCookie     = "cK74-session-in-a-cookie-Zq7"
	secretQuery      = "qY85-token-in-a-query-Zq7"
	secretEnv        = "eV96-value-in-the-environment-Zq7"
)

const secretManifests = `
apiVersion: v1
kind: Secret
metadata: {namespace: shop, name: login}
type: Opaque
stringData: {password: ` + secretPassword + `, key: ` + secretKey + `}
---
apiVersion: v1
kind: Secret
metadata: {namespace: shop, name: broken-tls}
type: kubernetes.io/tls
stringData: {tls.crt: ` + secretKey + `, tls.key: ` + secretKey + `}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  namespace: shop
  name: broken
  annotations:
    nginx.ingress.kubernetes.io/configuration-snippet: "proxy_set_header X-Token ` + secretAnnotation + `;"
    nginx.ingress.kubernetes.io/auth-url: "https://` + secretAnnotation + `@auth.example.com/"
    nginx.ingress.kubernetes.io/whitelist-source-range: "10.0.0.0/99" # no secret: Problems repeat what is wrong with it
    hythe.dev/token: "` + secretAnnotation + `"
spec:
  ingressClassName: hythe
  tls: [{hosts: [broken.example.com], secretName: broken-tls}]
  rules:
  - host: broken.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}
`

func startLookRig(t *testing.T) *lookRig {
	t.Helper()
	testenv.Root(t)
	t.Setenv("ENVOY", testenv.Envoy(t))
	t.Setenv("HYTHE_TEST_PASSWORD", secretEnv)
	bin := t.TempDir()
	for _, name := range []string{"hythe", "hythe-cni"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, name), "hythe.dev/hythe/cmd/"+name).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	manifests := t.TempDir()
	if err := os.CopyFS(manifests, os.DirFS("../../examples")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(manifests, "secrets.yaml"), []byte(secretManifests), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hythelook") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New("look", dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &lookRig{t: t, hythe: filepath.Join(bin, "hythe"), lab: l}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	r.must("lab", "up", "--name", l.Name, "--dir", l.Dir, "--manifests", manifests, "--fill")
	return r
}

// run runs hythe and returns what it said, and its exit code.
func (r *lookRig) run(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := exec.Command(r.hythe, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errOut.String(), exit.ExitCode()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return out.String(), errOut.String(), 0
}

func (r *lookRig) must(args ...string) string {
	r.t.Helper()
	stdout, stderr, code := r.run(args...)
	if code != 0 {
		r.t.Fatalf("hythe %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// on runs a command on a machine of the lab.
func (r *lookRig) on(machine string, command ...string) {
	r.t.Helper()
	r.must(append([]string{"lab", "shell", "--name", r.lab.Name, "--dir", r.lab.Dir, machine, "--"}, command...)...)
}

// eventually polls until ok, which says what is still missing.
func eventually(t *testing.T, ok func() string) {
	t.Helper()
	missing := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if missing = ok(); missing == "" {
			return
		}
	}
	t.Fatal(missing)
}

// The commands that look at a running cluster, on a real one.
func TestLook(t *testing.T) {
	r := startLookRig(t)
	t.Run("get", r.testGet)
	t.Run("check", r.testCheck)
	t.Run("support-bundle", r.testBundle)
	t.Run("silent process", r.testSilent) // last: it kills
}

func (r *lookRig) testGet(t *testing.T) {
	r = &lookRig{t, r.hythe, r.lab}
	get := func(args ...string) string {
		return r.must(append([]string{"get", "--lab-dir", r.lab.Dir}, args...)...)
	}
	for kind, want := range map[string][]string{
		"vips":         {"203.0.113.10", "hythe-system/gateway"},
		"services":     {"shop", "web", "3/3"},
		"hosts":        {"shop.example.com", "shop/shop-tls", "2/2 in use"},
		"routes":       {"/cart", "shop/cart:http"},
		"certificates": {"blog/blog-tls", "blog.example.com", "29d"},
		"nodes":        {"node3", "ready", "gateway,node", "2/2"},
		"problems":     {"Ingress shop/broken", "node1/gateway,node2/gateway"},
	} {
		eventually(t, func() string {
			got := get(kind)
			for _, text := range want {
				if !strings.Contains(got, text) {
					return fmt.Sprintf("get %s lacks %q:\n%s", kind, text, got)
				}
			}
			return ""
		})
	}
	eventually(t, func() string { // the owner is the one by whose MAC the VIP answers
		st, err := r.lab.Client().Status(t.Context())
		if err != nil || len(st.VIPs) != 1 || len(st.VIPs[0].Owners) != 1 {
			return fmt.Sprintf("the lab says %+v, %v", st.VIPs, err)
		}
		got := get("vips")
		for line := range strings.Lines(got) {
			if f := strings.Fields(line); slices.Contains(f, "203.0.113.10") && slices.Contains(f, st.VIPs[0].Owners[0]) {
				return ""
			}
		}
		return fmt.Sprintf("get vips lacks the owner %s:\n%s", st.VIPs[0].Owners[0], got)
	})
	// The kernel refuses connections to a closed port of a Service, and counts them.
	vip := "203.0.113.10"
	_, _, _ = r.run("lab", "shell", "--name", r.lab.Name, "--dir", r.lab.Dir, "client", "--", "curl", "-s", "--max-time", "2", "http://"+vip+":9/")
	if got := get("drops"); !strings.Contains(got, "closed-port") {
		t.Errorf("get drops:\n%s", got)
	}
	var list struct {
		Items []struct {
			Name  string
			Nodes []struct {
				Node    string
				Differs []string
			}
		}
	}
	if err := json.Unmarshal([]byte(get("services", "-n", "shop", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 3 || len(list.Items[0].Nodes) != 3 {
		t.Errorf("services of namespace shop: %+v", list)
	}
	for _, item := range list.Items {
		for _, n := range item.Nodes {
			if len(n.Differs) > 0 {
				t.Errorf("%s on %s differs: %v", item.Name, n.Node, n.Differs)
			}
		}
	}
	if _, stderr, code := r.run("get", "hosts", "nobody.example.com", "--lab-dir", r.lab.Dir); code != 1 || !strings.Contains(stderr, "no hosts named") {
		t.Errorf("a host that is not there: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := r.run("get", "services", "-n", "nowhere", "--lab-dir", r.lab.Dir); code != 0 || !strings.Contains(stderr, "No services found in namespace nowhere.") {
		t.Errorf("an empty namespace: exit code %d, %s", code, stderr)
	}
	if _, _, code := r.run("get", "hosts", "--admin", "unix:/nowhere"); code != 1 {
		t.Errorf("nobody answers: exit code %d", code)
	}
}

// find returns what a check of a node found, worst first.
func (r *lookRig) find(node, name string, severity check.Severity) string {
	r.t.Helper()
	stdout, stderr, _ := r.run("check", "--lab-dir", r.lab.Dir, "--node", node, "-o", "json")
	var results []checked
	if err := json.Unmarshal([]byte(stdout), &results); err != nil {
		r.t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	var out []string
	for _, f := range results[0].Findings {
		if f.Check == name && f.Severity == severity {
			out = append(out, f.Seen)
		}
	}
	return strings.Join(out, "\n")
}

func (r *lookRig) testCheck(t *testing.T) {
	r = &lookRig{t, r.hythe, r.lab}
	eventually(t, func() string {
		stdout, stderr, code := r.run("check", "--lab-dir", r.lab.Dir)
		if code == 0 && strings.Contains(stdout, "8 probes came back, heartbeats come from 2 nodes") && strings.Contains(stdout, "0 errors") {
			return ""
		}
		return fmt.Sprintf("a good lab: exit code %d\n%s%s", code, stdout, stderr)
	})
	conf := filepath.Join(r.lab.Dir, "nodes", "node2", "cni", "net.d", "05-other.conflist")
	for _, c := range []struct {
		name                 string
		breakIt, mendIt      func()
		node, check, finding string
		agentMends           bool // every 10 s, so that a check may come too late
	}{
		{
			"strict source check of all interfaces",
			func() {
				r.on("node2", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.hythe/vxlan.rp_filter=1")
			},
			func() {
				r.on("node2", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.hythe/vxlan.rp_filter=2")
			},
			"node2", "sysctl", "the source check of hythe.vxlan is strict", true,
		},
		{
			"a short MTU on another node",
			func() { r.on("node3", "ip", "link", "set", "eth0", "mtu", "1400") },
			func() { r.on("node3", "ip", "link", "set", "eth0", "mtu", "1500") },
			"node1", "peers", "a packet of 1500 bytes does not get to node3", false,
		},
		{
			"the VXLAN port closed, while heartbeats pass",
			func() {
				r.on("node3", "nft", "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; add rule inet wall in udp dport 4789 drop")
			},
			func() { r.on("node3", "nft", "delete", "table", "inet", "wall") },
			"node1", "peers", "the overlay to node3 10.244.3.0 carries nothing", false,
		},
		{
			"a VIP on the loopback interface",
			func() { r.on("node3", "ip", "address", "add", "203.0.113.10/32", "dev", "lo") },
			func() { r.on("node3", "ip", "address", "del", "203.0.113.10/32", "dev", "lo") },
			"node3", "balancer", "the VIP 203.0.113.10 is on lo", false,
		},
		{
			"rules of kube-proxy",
			func() { r.on("node3", "nft", "add table ip kube-proxy; add chain ip kube-proxy services") },
			func() { r.on("node3", "nft", "delete", "table", "ip", "kube-proxy") },
			"node3", "proxy", "ip kube-proxy services", false,
		},
		{
			"a CNI configuration that comes first",
			func() {
				if err := os.WriteFile(conf, []byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`), 0o644); err != nil {
					t.Fatal(err)
				}
			},
			func() { _ = os.Remove(conf) },
			"node2", "cni", "05-other.conflist (bridge) before 10-hythe.conflist", false,
		},
		{
			"a network of this machine in the pod range",
			func() { r.on("node1", "ip", "address", "add", "10.244.3.77/24", "dev", "lo") },
			func() { r.on("node1", "ip", "address", "del", "10.244.3.77/24", "dev", "lo") },
			"node1", "addresses", "the pod CIDR 10.244.3.0/24 overlaps the network 10.244.3.0/24 of lo", false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r = &lookRig{t, r.hythe, r.lab}
			if got := r.find(c.node, c.check, check.Error); strings.Contains(got, c.finding) {
				t.Fatalf("found before anything was broken: %s", got)
			}
			defer c.mendIt()
			c.breakIt()
			got, code := "", 0
			for range 10 {
				got = r.find(c.node, c.check, check.Error)
				_, _, code = r.run("check", "--lab-dir", r.lab.Dir, "--node", c.node)
				if !c.agentMends || strings.Contains(got, c.finding) && code == 1 {
					break
				}
				c.breakIt() // the agent was first, which is its work
			}
			if !strings.Contains(got, c.finding) {
				t.Errorf("%s of %s: got errors %q, want %q", c.check, c.node, got, c.finding)
			}
			if code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
		})
	}
}

func (r *lookRig) testBundle(t *testing.T) {
	r = &lookRig{t, r.hythe, r.lab}
	// Secrets come by, and leave what they leave in logs.
	_, _, _ = r.run("lab", "shell", "--name", r.lab.Name, "--dir", r.lab.Dir, "client", "--", "curl", "-sk", "--max-time", "5",
		"-H", "Host: shop.example.com", "-H", "Authorization: Bearer "+secretHeader, "-H", "Cookie: session="+secretCookie,
		"http://203.0.113.10/cart?token="+secretQuery)
	path := filepath.Join(t.TempDir(), "bundle.tar.gz")
	r.must("support-bundle", "--lab-dir", r.lab.Dir, "-o", path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v", info.Mode())
	}
	files := unpack(t, path)
	for _, name := range []string{
		"version.txt", "check.txt", "get/hosts.txt", "get/problems.txt", "this-machine/facts.json",
		"processes/node1/gateway/inspect/hosts.json", "processes/node1/gateway/debug/xds.txt", "processes/node2/node/inspect/table.json",
		"processes/node3/node/inspect/facts.json", "processes/controller/metrics.txt", "processes/node1/node/ready.txt", "logs/node1.node.log",
	} {
		if len(files[name]) == 0 {
			t.Errorf("the bundle has no %s", name)
		}
	}
	if !bytes.Contains(files["get/problems.txt"], []byte("broken")) {
		t.Errorf("the broken Ingress is not told:\n%s", files["get/problems.txt"])
	}
	if !bytes.Contains(files["processes/node2/node/inspect/table.json"], []byte("frontends4 ")) {
		t.Error("the table in the kernel is not told")
	}
	r.wantNoSecrets(t, files)
	if t.Failed() {
		var names []string
		for name := range files {
			names = append(names, name)
		}
		slices.Sort(names)
		t.Log(strings.Join(names, "\n"))
	}
}

// wantNoSecrets looks for each secret in each file, as it is, in base64 at each offset, and in hex.
func (r *lookRig) wantNoSecrets(t *testing.T, files map[string][]byte) {
	t.Helper()
	secrets := map[string][]byte{
		"key": []byte(secretKey), "password": []byte(secretPassword), "annotation": []byte(secretAnnotation), "header": []byte(secretHeader),
		"cookie": []byte(secretCookie), "query": []byte(secretQuery), "environment": []byte(secretEnv),
	}
	heartbeat, err := os.ReadFile(filepath.Join(r.lab.Dir, "heartbeat.key"))
	if err != nil {
		t.Fatal(err)
	}
	secrets["heartbeat key"] = bytes.TrimSpace(heartbeat)
	for _, name := range []string{"ca/ca.key"} {
		if data, err := os.ReadFile(filepath.Join(r.lab.Dir, name)); err == nil {
			lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
			secrets[name] = lines[len(lines)/2] // one line of the PEM body
		}
	}
	for what, secret := range secrets {
		if len(secret) < 16 {
			t.Fatalf("the %s is too short to look for: %q", what, secret)
		}
		forms := [][]byte{secret, []byte(hex.EncodeToString(secret))}
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			for skip := range 3 { // how the secret may lie in the groups of three bytes
				from := secret[skip:]
				whole := encoding.EncodeToString(from[:len(from)/3*3])
				forms = append(forms, []byte(whole))
			}
		}
		for name, data := range files {
			for _, form := range forms {
				if at := bytes.Index(data, form); at >= 0 {
					t.Errorf("%s holds the %s: ...%s...", name, what, data[max(0, at-60):min(len(data), at+len(form)+20)])
					break
				}
			}
		}
	}
	for name, data := range files {
		if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
			t.Errorf("%s holds a private key", name)
		}
	}
}

func unpack(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compressed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for archive := tar.NewReader(compressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/") // without the folder that has the time
		out[name] = data
	}
}

func (r *lookRig) testSilent(t *testing.T) {
	r = &lookRig{t, r.hythe, r.lab}
	r.must("lab", "kill", "--name", r.lab.Name, "--dir", r.lab.Dir, "node3/node", "--down")
	eventually(t, func() string {
		stdout, stderr, code := r.run("get", "services", "shop/web", "--lab-dir", r.lab.Dir, "-o", "json")
		if code == 0 && strings.Contains(stderr, "node3/node.sock") && strings.Contains(stdout, `"silent"`) && strings.Count(stdout, `"node": "node`) == 2 {
			return ""
		}
		return fmt.Sprintf("with node3's agent dead: exit code %d\n%s%s", code, stdout, stderr)
	})
	if got := r.must("get", "nodes", "--lab-dir", r.lab.Dir); !strings.Contains(got, "no answer") {
		t.Errorf("get nodes does not say that node3 is silent:\n%s", got)
	}
}
