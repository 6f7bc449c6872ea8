package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/testenv"
)

const smokeHost = "smoke.example.com"

// TestSmoke is the whole life of Hythe on a real cluster, seen from a client outside of it. It wants the programs of
// scripts/kubernetes.sh and the images of make images, and takes the place of a cluster that runs.
func TestSmoke(t *testing.T) {
	s := newSmoke(t, cluster.Hythe, 2)
	ctx := s.fresh(t, 18*time.Minute)
	if !t.Run("Ingress", func(t *testing.T) { s.eventually(ctx, t, s.askIngress) }) {
		return
	}
	t.Run("NodePort", func(t *testing.T) { s.askNodePort(ctx, t, s.Nodes...) })
	t.Run("LoadBalancer", func(t *testing.T) { s.askLoadBalancer(ctx, t) })
	t.Run("DNS", func(t *testing.T) { s.eventually(ctx, t, s.askInside) })
	t.Run("Kubernetes", func(t *testing.T) { s.kubernetes(ctx, t) })
	t.Run("Upgrade", func(t *testing.T) { s.upgrade(ctx, t) })
	t.Run("Uninstall", func(t *testing.T) {
		s.uninstall(ctx, t)
		s.clean(t, map[string]string{
			"routes":            "ip route | grep 10.244.",
			"CNI configuration": "ls -A /etc/cni/net.d",
			"CNI plugins":       "ls -A /opt/cni/bin",
		})
	})
}

// TestGuestSmoke is the same of Hythe as gateway and load balancer of a cluster whose network is kube-proxy and the reference
// plugins: these are as before when Hythe is gone.
func TestGuestSmoke(t *testing.T) {
	s := newSmoke(t, cluster.Guest, 2)
	s.helm = "helm3" // TestSmoke does the same with Helm 4
	ctx := s.fresh(t, 10*time.Minute)
	t.Run("Ingress", func(t *testing.T) { s.eventually(ctx, t, s.askIngress) })
	t.Run("LoadBalancer", func(t *testing.T) { s.askLoadBalancer(ctx, t) })
	t.Run("Upgrade", func(t *testing.T) { s.upgrade(ctx, t) })
	t.Run("Uninstall", func(t *testing.T) {
		s.uninstall(ctx, t)
		s.clean(t, map[string]string{
			"CNI configuration": "ls -A /etc/cni/net.d | grep -vx 10-bridge.conflist",
			"CNI plugins":       "ls -A /opt/cni/bin | grep hythe",
		})
		s.askNodePort(ctx, t, s.Nodes...)
		s.eventually(ctx, t, s.askInside)
	})
}

// fresh takes down a cluster that runs, and starts one for a test that must not take longer than limit.
func (s *smoke) fresh(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	if s.productImages() == nil {
		t.Fatal("no images in bin/images: make images")
	}
	t.Cleanup(func() { s.downLeavesNothing(t) })
	if err := s.down(); err != nil {
		t.Fatal(err)
	}
	if err := s.up(ctx, false); err != nil {
		t.Fatal(s.hint(err))
	}
	s.apply(ctx, t)
	return ctx
}

// TestDownAfterKill kills the rig while it makes a cluster, at several points, and wants nothing to be left after down.
func TestDownAfterKill(t *testing.T) {
	s := newSmoke(t, cluster.Hythe, 2)
	s.unlock() // the rig that is killed holds it
	for _, after := range []string{"on the LAN", "containerd of node", "the API server is ready"} {
		t.Run(after, func(t *testing.T) {
			if err := s.down(); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", "up", "--bare", "--nodes", "2", "--dir", s.Dir, "--source", t.TempDir())
			cmd.Env = append(os.Environ(), asRig+"=1")
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			seen := false
			for !seen && lines.Scan() {
				seen = strings.Contains(lines.Text(), after)
			}
			err = cmd.Process.Kill()
			_ = cmd.Wait() // killed
			if err != nil || !seen {
				t.Errorf("the rig ended before it said %q: %v", after, err)
			}
			s.downLeavesNothing(t)
		})
	}
}

type smoke struct {
	*rig
	unlock func()
	roots  *x509.CertPool
	mu     sync.Mutex
	vip    string // of the gateway
}

// newSmoke is a cluster that is still to be made. No other test makes one until this one ends.
func newSmoke(t *testing.T, flavour string, nodes int) *smoke {
	t.Helper()
	if os.Getenv("HYTHE_CLUSTER") == "" {
		t.Skip("needs HYTHE_CLUSTER=1, Kubernetes' programs and images: make test-cluster")
	}
	testenv.Root(t)
	unlock, err := lock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	o := &options{dir: "/var/tmp/hythe-cluster", source: "../.."}
	if dir := os.Getenv("CLUSTER_DIR"); dir != "" {
		o.dir = dir
	}
	c, err := cluster.New("", "", flavour, nodes)
	if err != nil {
		t.Fatal(err)
	}
	r, err := o.open(c, testWriter{t})
	if err != nil {
		t.Fatal(err)
	}
	return &smoke{rig: r, unlock: unlock}
}

// testWriter writes lines to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// apply makes the Services and the Ingress that the client asks.
func (s *smoke) apply(ctx context.Context, t *testing.T) {
	cert := cluster.Certificate{Name: "smoke", User: smokeHost, Hosts: []string{smokeHost}}
	if err := issue(s.Cluster, cert); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(s.Path("pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(ca)
	manifests, err := os.ReadFile(filepath.Join("testdata", "smoke.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(manifests), "AGNHOST", cluster.AgnhostImage)
	if _, err := s.kubectl(ctx, text, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kubectl(ctx, "", "delete", "secret", "smoke", "-n", "smoke", "--ignore-not-found"); err != nil { // of an earlier test
		t.Fatal(err)
	}
	if _, err := s.kubectl(ctx, "", "create", "secret", "tls", "smoke", "-n", "smoke",
		"--cert", s.Path("pki", "smoke.crt"), "--key", s.Path("pki", "smoke.key")); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(ctx, "the servers are ready", func() (string, error) { return s.incomplete(ctx, "smoke") }); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until it is answered. What is seen from outside follows the objects' status by a moment.
func (s *smoke) eventually(ctx context.Context, t *testing.T, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *smoke) jsonPath(ctx context.Context, t *testing.T, object, path string) string {
	t.Helper()
	out, err := s.kubectl(ctx, "", "get", "-n", "smoke", object, "-o", "jsonpath="+path)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// client asks from the outside client's namespace, by a new connection each time.
func (s *smoke) client(address string) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: s.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return topology.Dial(ctx, cluster.Namespace(cluster.Client), network, address)
		},
	}}
}

func (s *smoke) ask(ctx context.Context, address, url, want string) error {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.client(address).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), want)) {
		err = fmt.Errorf("%s from %s: %s %q, want %s", url, address, resp.Status, body, want)
	}
	return err
}

func (s *smoke) askPlain(ctx context.Context, address string) error {
	return s.ask(ctx, address, "http://"+address+"/hostname", "web-")
}

// askNodePort asks each of the nodes until it answers.
func (s *smoke) askNodePort(ctx context.Context, t *testing.T, nodes ...cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		s.eventually(ctx, t, func(ctx context.Context) error {
			port := s.jsonPath(ctx, t, "service/by-port", "{.spec.ports[0].nodePort}")
			return s.askPlain(ctx, n.Address.String()+":"+port)
		})
	}
}

func (s *smoke) askLoadBalancer(ctx context.Context, t *testing.T) {
	t.Helper()
	s.eventually(ctx, t, func(ctx context.Context) error {
		return s.askPlain(ctx, s.jsonPath(ctx, t, "service/by-address", "{.status.loadBalancer.ingress[0].ip}")+":80")
	})
}

// askInside has a pod ask for a Service by its name.
func (s *smoke) askInside(ctx context.Context) error {
	out, err := s.kubectl(ctx, "", "exec", "-n", "smoke", "deployment/web", "--", "curl", "-sSm", "3", "http://web/hostname")
	if err == nil && !strings.HasPrefix(string(out), "web-") {
		err = fmt.Errorf("unexpected answer %q", out)
	}
	return err
}

// askIngress asks for the host of the Ingress at the address that its status tells.
func (s *smoke) askIngress(ctx context.Context) error {
	s.mu.Lock()
	vip := s.vip
	s.mu.Unlock()
	if vip == "" {
		var ingress struct {
			Status struct {
				LoadBalancer struct{ Ingress []struct{ IP string } }
			}
		}
		out, err := s.kubectl(ctx, "", "get", "ingress", "web", "-n", "smoke", "-o", "json")
		if err == nil {
			err = json.Unmarshal(out, &ingress)
		}
		if err != nil {
			return err
		}
		if len(ingress.Status.LoadBalancer.Ingress) == 0 {
			return errors.New("the Ingress has no address yet")
		}
		s.mu.Lock()
		s.vip = ingress.Status.LoadBalancer.Ingress[0].IP
		vip = s.vip
		s.mu.Unlock()
	}
	return s.ask(ctx, vip+":443", "https://"+smokeHost+"/hostname", "web-")
}

// upgrade changes a value that restarts all of Hythe but Envoy, while a client asks without rest.
func (s *smoke) upgrade(ctx context.Context, t *testing.T) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var asked int
	var lost []error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for asking.Err() == nil {
			if err := s.askIngress(ctx); err != nil {
				lost = append(lost, fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err))
			}
			asked++
		}
	}()
	var err error
	for _, step := range [][]string{
		{"upgrade", release, filepath.Join(s.source, "charts", "hythe"), "--reuse-values", "--set", "logLevel=debug"},
		{"rollback", release},
	} {
		_, err = s.command(ctx, "", s.Binary(s.helm), append(step, "--kubeconfig", s.Kubeconfig(), "--namespace", namespace)...)
		if err == nil {
			err = s.wait(ctx, "Hythe is ready after the "+step[0], func() (string, error) { return s.incomplete(ctx, namespace) })
		}
		if err != nil {
			break
		}
	}
	stop()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests during the upgrade, %d lost", asked, len(lost))
	if len(lost) > 0 {
		t.Errorf("%d of %d requests were lost during the upgrade: %v", len(lost), asked, errors.Join(lost...))
	}
}

// kept are objects that an uninstall leaves: the definitions on purpose, as all that users made of them would go too, and what
// is Helm's.
var kept = []string{"customresourcedefinition.apiextensions.k8s.io/", "apiservice.apiregistration.k8s.io/v1alpha1.hythe.dev", "namespace/hythe-system"}

// uninstall wants no object of Hythe to be left.
func (s *smoke) uninstall(ctx context.Context, t *testing.T) {
	if _, err := s.command(ctx, "", s.Binary(s.helm), "--kubeconfig", s.Kubeconfig(), "uninstall", release, "--namespace", namespace, "--wait", "--timeout", "3m"); err != nil {
		t.Fatal(err)
	}
	kinds := strings.Fields(s.must(ctx, t, "", "api-resources", "--verbs=list", "-o", "name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return strings.HasPrefix(kind, "events") })
	s.eventually(ctx, t, func(ctx context.Context) error { // Helm 3 does not wait for what it deletes of hooks
		out, err := s.kubectl(ctx, "", "get", strings.Join(kinds, ","), "--all-namespaces", "-o", "name")
		var left []string
		for name := range strings.FieldsSeq(string(out)) {
			if strings.Contains(name, "hythe") && !slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(name, k) }) {
				left = append(left, name)
			}
		}
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("objects are left: %v", left)
		}
		return err
	})
}

// clean wants nothing of Hythe on the nodes. Each script prints what there is.
func (s *smoke) clean(t *testing.T, scripts map[string]string) {
	t.Helper()
	scripts = maps.Clone(scripts)
	scripts["nftables"] = "nft list tables | grep hythe"
	scripts["links"] = "ip -o link | grep hythe"
	scripts["data"] = "ls -A /var/lib/hythe; ls -A /run/hythe" // the folders stay: they are mounts where they are emptied
	for _, n := range s.Nodes {
		for what, script := range scripts {
			cmd := exec.Command("/bin/sh", "-c", script)
			var out strings.Builder
			cmd.Stdout = &out
			if err := s.hostNode(n.Name).Start(cmd); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // grep finds nothing: 1
			if out.Len() > 0 {
				t.Errorf("%s has still %s: %s", n.Name, what, out.String())
			}
		}
	}
}

func (s *smoke) downLeavesNothing(t *testing.T) {
	if err := s.down(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, s.Dir)
}

// nothingLeft looks for all that a cluster consists of.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if cluster.Owns(e.Name()) {
			t.Errorf("network namespace %s is left", e.Name())
		}
	}
	if _, err := net.InterfaceByName(cluster.HostLink); err == nil {
		t.Errorf("interface %s is left", cluster.HostLink)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("folder %s is left", dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts of %s are left", dir)
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/hythe-cluster")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/hythe-cluster"); err == nil { // cgroup v2 is one tree
		cgroups = append(cgroups, "/sys/fs/cgroup/hythe-cluster")
	}
	if len(cgroups) > 0 {
		t.Errorf("cgroups are left: %v", cgroups)
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && strings.Contains(string(line), filepath.Join(dir, "rig")) && !strings.HasPrefix(f, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			t.Errorf("process %s is left: %s", filepath.Base(filepath.Dir(f)), strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
}
