package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/examples"
	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/echo"
	"hythe.dev/hythe/internal/lab/load"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
)

// An apiLab is a lab whose cluster is in an API server, and a client of it.
type apiLab struct {
	*testing.T
	lab.Lab
	manifests string
	vip       netip.Addr
	roots     *x509.CertPool
	http      *http.Client
}

// startAPI runs a lab of the examples with an API server until the test ends.
func startAPI(t *testing.T, name string) *apiLab {
	t.Helper()
	if os.Getenv("HYTHE_API") != "1" {
		t.Skip("needs a Kubernetes API server: run make test-api")
	}
	hythe := build(t)
	a := &apiLab{T: t, Lab: open(t, name), manifests: t.TempDir(), roots: x509.NewCertPool()}
	files, err := fs.Glob(examples.Files(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := examples.Files().ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(a.manifests, f), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(hythe, "lab", "up", "--name", a.Name(), "--dir", a.Dir, "--manifests", a.manifests, "--fill",
		"--source", "api", "--wait", "2m").CombinedOutput()
	if err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	st := a.status()
	if len(st.VIPs) != 1 || len(st.VIPs[0].Owners) != 1 {
		t.Fatalf("VIPs %+v", st.VIPs)
	}
	a.vip = netip.MustParseAddr(st.VIPs[0].Address)
	ca, err := os.ReadFile(a.CA())
	if err != nil || !a.roots.AppendCertsFromPEM(ca) {
		t.Fatalf("CA: %v", err)
	}
	a.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: a.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return topology.Dial(ctx, a.Namespace(topology.Client), network, netip.AddrPortFrom(a.vip, 443).String())
		},
	}}
	return a
}

// Name is that of the lab, not of the test.
func (a *apiLab) Name() string { return a.Lab.Name }

func (a *apiLab) status() lab.Status {
	a.Helper()
	st, err := a.Client().Status(a.Context())
	if err != nil {
		a.Fatal(err)
	}
	return st
}

// until waits for something.
func (a *apiLab) until(what string, is func() bool) {
	a.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > time.Minute {
			st := a.status()
			st.WriteText(a.Output())
			a.Fatalf("not in a minute: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.Logf("%s after %s", what, time.Since(start).Round(10*time.Millisecond))
}

func (a *apiLab) kill(process string, hold bool) {
	a.Helper()
	if err := a.Client().Kill(a.Context(), process, hold); err != nil {
		a.Fatal(err)
	}
}

// restart kills a process and waits until another one is ready.
func (a *apiLab) restart(process string) {
	a.Helper()
	before := a.process(process)
	a.kill(process, false)
	a.until(process+" is ready again", func() bool {
		p := a.process(process)
		return p.Ready && p.PID != 0 && p.PID != before.PID
	})
}

func (a *apiLab) process(name string) lab.ProcessStatus {
	a.Helper()
	for _, p := range a.status().Processes {
		if p.Name == name {
			return p
		}
	}
	a.Fatalf("no process %s", name)
	return lab.ProcessStatus{}
}

// restartEnvoy kills the Envoy of a node and waits until it serves again.
func (a *apiLab) restartEnvoy(node string) {
	a.Helper()
	envoy := func() (lab.PodStatus, int) {
		for _, p := range a.status().Pods {
			if p.Owner == "envoy" && p.Node == node && len(p.Containers) == 1 {
				return p, p.Containers[0].Restarts
			}
		}
		return lab.PodStatus{}, 0
	}
	_, before := envoy()
	a.kill(node+"/envoy", false)
	a.until("Envoy of "+node+" serves again", func() bool {
		p, restarts := envoy()
		return p.Ready && restarts > before
	})
}

// ask returns the pod that answers. It tries again for a while: what must not be lost is counted by the load, and a
// single client may be slow on a busy machine.
func (a *apiLab) ask(url string) string {
	a.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		pod, err := a.askOnce(url)
		if err == nil {
			return pod
		}
		if time.Now().After(deadline) {
			a.Fatal(err)
		}
		a.Log(err)
	}
}

// askOnce returns the pod that answers one request.
func (a *apiLab) askOnce(url string) (pod string, err error) {
	r, err := a.http.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	var answer echo.Answer
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, r.Status)
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("%s: read answer: %w", url, err)
	}
	return answer.Pod, nil
}

// answers says whether a pod with a prefix answers a request to the shop.
func (a *apiLab) answers(path, prefix string) bool {
	pod, err := a.askOnce("https://shop.example.com" + path)
	return err == nil && strings.HasPrefix(pod, prefix)
}

// identity is what a process says of itself, and problems its page of problems.
func (a *apiLab) identity(process string) (id inspect.Identity, problems string) {
	a.Helper()
	c, err := inspect.Open(a.Context(), []string{"unix:" + a.Admin(process)})
	if err != nil {
		a.Fatal(err)
	}
	problems, err = c.Processes[0].Text(a.Context(), "problems")
	if err != nil {
		a.Fatal(err)
	}
	return c.Processes[0].Identity, problems
}

// edit replaces text in a manifest.
func (a *apiLab) edit(file, old, replacement string) {
	a.Helper()
	path := filepath.Join(a.manifests, file)
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), old) != 1 {
		a.Fatalf("%q is not once in %s: %v", old, file, err)
	}
	if err := atomicfile.WriteUnsynced(path, []byte(strings.Replace(string(data), old, replacement, 1)), 0o644); err != nil {
		a.Fatal(err)
	}
}

// away is how long the API server stays away.
func away(t *testing.T) time.Duration {
	text := os.Getenv("HYTHE_API_AWAY")
	if text == "" {
		return 25 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("HYTHE_API_AWAY: %v", err)
	}
	return d
}

// TestAPIAway takes the API server away for long (HYTHE_API_AWAY). Meanwhile gateways, node agents, the controller and
// an Envoy are killed. No request is lost, and what was missed is caught up.
func TestAPIAway(t *testing.T) {
	testenv.Root(t)
	a := startAPI(t, "apitest")
	owner, other := a.status().VIPs[0].Owners[0], "node1"
	if owner == other {
		other = "node2"
	}
	if id, problems := a.identity(other + "/node"); id.Source != "api" || id.Component != "node" || id.Node != other || id.Snapshot.IsZero() || strings.Contains(problems, "APIServer") {
		t.Errorf("before: %+v, %s", id, problems)
	}
	loading, stop := context.WithCancel(t.Context())
	client := &load.Client{
		Namespace: a.Namespace(topology.Client), To: netip.AddrPortFrom(a.vip, 443), Host: "shop.example.com", Path: "/", Roots: a.roots, Rate: 100,
	}
	ended := make(chan load.Tally, 1)
	go func() { ended <- client.Run(loading) }()
	defer stop()

	gone := time.Now()
	a.kill("control/kube-apiserver", true)
	a.until("the gateway says that it is away", func() bool {
		id, problems := a.identity(owner + "/gateway")
		return id.Source == "cache" && strings.Contains(problems, "APIServerAway")
	})
	a.until("the controller says so too", func() bool {
		_, problems := a.identity("control/controller")
		return strings.Contains(problems, "APIServerAway")
	})
	a.kill("control/controller", false)
	a.restart(other + "/gateway")
	if id, problems := a.identity(other + "/gateway"); id.Source != "cache" || !strings.Contains(problems, "SnapshotFromCache") {
		t.Errorf("a gateway that started without the API server: %+v, %s", id, problems)
	}
	a.restartEnvoy(other)
	a.restart(owner + "/gateway")
	a.restart(other + "/node")
	a.restart("node3/node")
	a.edit("shop.yaml", "  replicas: 3\n", "  replicas: 4\n")
	const path = "          - path: /cart\n            pathType: Prefix\n            backend:\n              service:\n                name: "
	const cart, web = path + "cart\n", path + "web\n"
	a.edit("shop.yaml", cart, web)
	a.until("four pods of web run", func() bool {
		n := 0
		for _, p := range a.status().Pods {
			if p.Owner == "web" && p.Ready {
				n++
			}
		}
		return n == 4
	})
	if pod := a.ask("https://shop.example.com/cart"); !strings.HasPrefix(pod, "cart-") {
		t.Errorf("/cart is answered by %s: the edit cannot have arrived", pod)
	}
	for rest := away(t) - time.Since(gone); rest > 0; rest = away(t) - time.Since(gone) {
		time.Sleep(min(rest, 10*time.Second))
		a.ask("https://shop.example.com/")
	}
	t.Logf("the API server was away for %s", time.Since(gone).Round(time.Second))

	if err := a.Client().Start(t.Context(), "control/kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	a.until("/cart goes to web", func() bool { return a.answers("/cart", "web-") })
	pods := map[string]bool{}
	a.until("all four pods of web answer", func() bool {
		if pod, err := a.askOnce("https://shop.example.com/"); err == nil {
			pods[pod] = true
		}
		return len(pods) == 4
	})
	a.edit("shop.yaml", web, cart)
	a.until("/cart goes to cart again", func() bool { return a.answers("/cart", "cart-") })
	a.until("everything is ready", func() bool { return len(a.status().Waiting) == 0 })
	for _, process := range []string{"control/controller", owner + "/gateway", other + "/gateway", owner + "/node", "node3/node"} {
		a.until(process+" uses the API server", func() bool {
			id, problems := a.identity(process)
			return id.Source == "api" && !strings.Contains(problems, "APIServer") && !strings.Contains(problems, "SnapshotFromCache")
		})
	}
	if now := a.status().VIPs[0].Owners; len(now) != 1 || now[0] != owner {
		t.Errorf("the VIP is on %v, it was on %s", now, owner)
	}
	stop()
	tally := <-ended
	t.Logf("%d requests, %d lost, all within %s", tally.Requests(), len(tally.Lost), tally.Quantile(1).Round(time.Millisecond))
	for _, lost := range tally.Lost[:min(5, len(tally.Lost))] {
		t.Error(lost)
	}
	if tally.Requests() < 500 {
		t.Errorf("%d requests only", tally.Requests())
	}
}

// TestAPISource checks what the lab writes to the API server and what Hythe writes there.
func TestAPISource(t *testing.T) {
	a := startAPI(t, "apisource")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	snapshot := func() *model.Snapshot {
		t.Helper()
		s, err := a.Snapshot(ctx, a.manifests)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	shop := model.Key{Namespace: "shop", Name: "shop"}
	a.until("the Ingress has its address", func() bool {
		i := snapshot().Ingresses.Get(shop)
		return i != nil && len(i.Status.LoadBalancer.Ingress) == 1 && i.Status.LoadBalancer.Ingress[0].IP == a.vip.String()
	})
	s := snapshot()
	gateway := s.Services.Get(model.Key{Namespace: "hythe-system", Name: "gateway"})
	if gateway == nil || gateway.Spec.ClusterIP == "" || gateway.Spec.Ports[0].NodePort == 0 || fmt.Sprint(gateway.Status.LoadBalancer.Ingress) == "[]" {
		t.Errorf("Service of the gateway: %+v", gateway)
	}
	if len(s.Nodes) != 3 || len(s.Claims) != 1 || s.Reports["node-node3"] == nil || s.Reports["gateway-node1"] == nil {
		t.Errorf("%d nodes, %d claims, reports %v", len(s.Nodes), len(s.Claims), s.Reports)
	}
	// What a person deletes from the folder is deleted in the API, and what cannot be said there is said by the lab.
	a.edit("blog.yaml", "kind: Ingress\n", "kind: ConfigMap\n")
	a.until("Ingress blog is deleted", func() bool { return snapshot().Ingresses.Get(model.Key{Namespace: "blog", Name: "blog"}) == nil })
	if snapshot().Services.Get(gatewayKey()).Spec.ClusterIP != gateway.Spec.ClusterIP {
		t.Error("the gateway's Service has another ClusterIP")
	}
	a.edit("shop.yaml", "path: /cart\n            pathType: Prefix", "path: /cart\n            pathType: prefix")
	a.until("the lab says what the API refused", func() bool {
		return strings.Contains(strings.Join(a.status().Problems, "\n"), "Ingress shop shop: 422")
	})
}

func gatewayKey() model.Key { return model.Key{Namespace: "hythe-system", Name: "gateway"} }
