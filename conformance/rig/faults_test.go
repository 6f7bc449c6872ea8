package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/internal/lab/topology"
)

// TestFaults does to one real cluster what goes wrong in clusters, while a client outside of it asks without rest. It uses a
// cluster that runs, and takes it down at the end unless HYTHE_CLUSTER_KEEP is set. HYTHE_API_AWAY is how long the API
// server is away (default 60s), HYTHE_MANY how many Ingresses and Services are made at once (default 2000).
func TestFaults(t *testing.T) {
	s := newSmoke(t, cluster.Hythe, 3)
	ctx := t.Context()
	if s.productImages() == nil {
		t.Fatal("no images in bin/images: make images")
	}
	if os.Getenv("HYTHE_CLUSTER_KEEP") == "" {
		t.Cleanup(func() { s.downLeavesNothing(t) })
	}
	if err := s.up(ctx, false); err != nil {
		t.Fatal(s.hint(err))
	}
	f := s.prepare(ctx, t)
	for _, c := range []struct {
		name string
		run  func(context.Context, *testing.T)
	}{
		{"WrongValue", f.wrongValue},
		{"APIServerRestarts", f.apiRestarts},
		{"APIServerSlow", f.apiSlow},
		{"APIServerAway", f.apiAway},
		{"EtcdCompacted", f.compacted},
		{"LeaderKilled", f.leaderKilled},
		{"LeaderStopped", f.leaderStopped},
		{"DeletedInUse", f.deletedInUse},
		{"Many", f.many},
		{"HostNetwork", f.hostNetwork},
		{"KubeProxyBeside", f.kubeProxyBeside},
		{"DiskFull", f.diskFull},
		{"LongLived", f.longLived},
		{"EnvoyUpgraded", f.envoyUpgraded},
		{"NodeAddedDrainedRemoved", f.nodeComesAndGoes},
		{"NodeReaddressed", f.nodeReaddressed},
		{"NodeRenumbered", f.nodeRenumbered},
		{"NodeRebooted", f.nodeRebooted},
		{"AllNodesRebooted", f.allRebooted},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(ctx, t)
			f.quiet(ctx, t)
		})
	}
}

type faults struct {
	*smoke
	hythe     string // the program, for hythe get
	byAddress string // of the LoadBalancer Service
}

// prepare makes what clients ask for in a cluster that runs.
func (s *smoke) prepare(ctx context.Context, t *testing.T) *faults {
	t.Helper()
	s.must(ctx, t, "", "delete", "deployment", "web", "-n", "smoke", "--ignore-not-found") // of an earlier test, as it was patched
	s.apply(ctx, t)
	// A server that ends leaves its clients the time to hear of it.
	s.must(ctx, t, "", "patch", "deployment", "web", "-n", "smoke", "-p", `{"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 30,
		"containers": [{"name": "web", "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}]}}}}`)
	s.whole(ctx, t, "smoke")
	f := &faults{smoke: s, hythe: filepath.Join(t.TempDir(), "hythe")}
	if _, err := s.command(ctx, "", "go", "build", "-o", f.hythe, filepath.Join(s.source, "cmd", "hythe")); err != nil {
		t.Fatal(err)
	}
	s.eventually(ctx, t, f.askBoth)
	return f
}

// must runs kubectl.
func (s *smoke) must(ctx context.Context, t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := s.kubectl(ctx, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// whole waits until all that is to run in a namespace is ready.
func (s *smoke) whole(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	s.until(ctx, t, func(ctx context.Context) (string, error) { return s.incomplete(ctx, namespace) })
}

// until waits until nothing is missing.
func (s *smoke) until(ctx context.Context, t *testing.T, check func(context.Context) (missing string, err error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for {
		missing, err := check(ctx)
		if err == nil && missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still missing: %s %v", missing, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// askBoth asks through the gateway, and through a LoadBalancer Service.
func (f *faults) askBoth(ctx context.Context) error {
	return errors.Join(f.askIngress(ctx), f.askService(ctx))
}

func (f *faults) askService(ctx context.Context) error {
	f.mu.Lock()
	address := f.byAddress
	f.mu.Unlock()
	if address == "" {
		out, err := f.kubectl(ctx, "", "get", "-n", "smoke", "service/by-address", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err != nil {
			return err
		}
		address = string(out)
		f.mu.Lock()
		f.byAddress = address
		f.mu.Unlock()
	}
	return f.askPlain(ctx, address+":80")
}

// quiet wants everything to be ready and answered again after a fault.
func (f *faults) quiet(ctx context.Context, t *testing.T) {
	t.Helper()
	wait, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	if err := f.waitReady(wait); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{namespace, "smoke"} {
		f.whole(ctx, t, ns)
	}
	f.eventually(ctx, t, f.askBoth)
}

// underTraffic does something while clients ask, and returns the requests that were lost.
func (f *faults) underTraffic(ctx context.Context, t *testing.T, do func()) []error {
	t.Helper()
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		lost  []error
		asked int
	)
	for _, ask := range []func(context.Context) error{f.askIngress, f.askService} {
		wg.Go(func() {
			for asking.Err() == nil {
				err := ask(ctx)
				mu.Lock()
				asked++
				if err != nil {
					lost = append(lost, fmt.Errorf("%s: %w", time.Now().Format(time.TimeOnly), err))
				}
				mu.Unlock()
				time.Sleep(10 * time.Millisecond) // the machine has other work
			}
		})
	}
	func() {
		defer wg.Wait() // also if do gives up
		defer stop()
		do()
	}()
	t.Logf("%d requests, %d lost", asked, len(lost))
	return lost
}

// lossless does something while clients ask, and wants all to be answered.
func (f *faults) lossless(ctx context.Context, t *testing.T, do func()) {
	t.Helper()
	if lost := f.underTraffic(ctx, t, do); len(lost) > 0 {
		t.Errorf("%d requests were lost: %v", len(lost), errors.Join(lost[:min(len(lost), 5)]...))
	}
}

// processes are the machine's pids of a part of Hythe on a node: node, gateway, controller.
func (f *faults) processes(node, part string) []int {
	var out []int
	for _, pid := range f.hostNode(node).Processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasPrefix(string(line), "/hythe\x00"+part+"\x00") {
			out = append(out, pid)
		}
	}
	return out
}

func (f *faults) signal(t *testing.T, pids []int, sig unix.Signal) {
	t.Helper()
	if len(pids) == 0 {
		t.Fatalf("no process for %s", sig)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
}

// owner is the node that answers ARP for an address, as the router knows it.
func (f *faults) owner(t *testing.T, address string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("/usr/sbin/ip", "neigh", "show", "to", address)
	if path, err := exec.LookPath("ip"); err == nil {
		cmd.Path = path
	}
	cmd.Stdout = &out
	err := topology.Start(cluster.Namespace(cluster.Router), cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Nodes {
		if strings.Contains(out.String(), n.MAC.String()) {
			return n.Name
		}
	}
	t.Fatalf("the router knows no node for %s: %s", address, out.String())
	return ""
}

// other is a node that owns none of the addresses that are asked, or at least not the gateway's.
func (f *faults) other(t *testing.T) string {
	t.Helper()
	gateway, service := f.owner(t, f.vip), f.owner(t, f.byAddress)
	found := ""
	for _, n := range f.Nodes {
		if n.Name != gateway && (found == "" || found == service) {
			found = n.Name
		}
	}
	return found
}

// wrongValue wants values that mean nothing to be refused, with their name, before anything changes.
func (f *faults) wrongValue(ctx context.Context, t *testing.T) {
	state := func() string {
		return f.must(ctx, t, "", "get", "-n", namespace, "daemonsets,deployments", "-o", "jsonpath={.items[*].metadata.generation}") +
			f.must(ctx, t, "", "get", "secrets", "-n", namespace, "-l", "owner=helm", "-o", "name")
	}
	f.lossless(ctx, t, func() {
		for _, c := range []struct{ set, says string }{
			{"controller.replica=3", "replica"},
			{"gateway.drainSeconds=soon", "drainSeconds"},
			{"logLevel=loud", "logLevel"},
			{"apiServers[0]=https://203.0.113.100:6443", "apiServers"},
			{"addressPools[0].name=rig,addressPools[0].addresses[0]=203.0.113.300", "203.0.113.300"},
		} {
			before := state()
			_, err := f.command(ctx, "", f.Binary("helm"), "--kubeconfig", f.Kubeconfig(), "upgrade", release, filepath.Join(f.source, "charts", "hythe"),
				"--namespace", namespace, "--reuse-values", "--set", c.set)
			if err == nil {
				t.Errorf("%s is taken", c.set)
			} else if !strings.Contains(strings.SplitN(err.Error(), ": exit status", 2)[1], c.says) {
				t.Errorf("%s: the message does not say %q: %v", c.set, c.says, err)
			}
			if after := state(); after != before {
				t.Errorf("%s changed something:\n%s\n%s", c.set, before, after)
			}
		}
	})
}

func (f *faults) apiServer() cluster.Daemon {
	d, _ := f.find(cluster.APIServerDaemon)
	return d[0]
}

// follows wants a new Ingress to be served, and takes it away again.
func (f *faults) follows(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	f.until(ctx, t, func(ctx context.Context) (string, error) {
		_, err := f.kubectl(ctx, ingressText(name, "smoke", "web"), "apply", "-f", "-")
		return "", err
	})
	f.eventually(ctx, t, func(ctx context.Context) error { return f.askHost(ctx, name) })
	f.must(ctx, t, "", "delete", "ingress", name, "-n", "smoke")
}

func ingressText(name, namespace, service string) string {
	return fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, namespace: %s}
spec:
  ingressClassName: hythe
  rules:
  - host: %[1]s.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: %[3]s, port: {number: 80}}}}]}
---
`, name, namespace, service)
}

// askHost asks the gateway without TLS.
func (f *faults) askHost(ctx context.Context, name string) error {
	return f.askStatus(ctx, name, http.StatusOK)
}

func (f *faults) askStatus(ctx context.Context, name string, want int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+".example.com/hostname", nil)
	if err != nil {
		return err
	}
	resp, err := f.client(f.vip + ":80").Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return fmt.Errorf("%s: %s, want %d", name, resp.Status, want)
	}
	return nil
}

func (f *faults) apiRestarts(ctx context.Context, t *testing.T) {
	f.lossless(ctx, t, func() {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			pid, ok := f.daemon(f.apiServer()).PID()
			if !ok {
				t.Fatal("the API server does not run")
			}
			f.signal(t, []int{pid}, sig)
			f.until(ctx, t, func(context.Context) (string, error) {
				if _, ok := f.daemon(f.apiServer()).PID(); ok {
					return "the end of the API server", nil
				}
				return "", nil
			})
			if err := f.restart(ctx, cluster.APIServerDaemon); err != nil {
				t.Fatal(err)
			}
			f.follows(ctx, t, "restarted-"+strconv.Itoa(int(sig)))
		}
	})
}

// apiSlow stops the API server for some seconds, again and again: connections stay open and nothing comes.
func (f *faults) apiSlow(ctx context.Context, t *testing.T) {
	f.lossless(ctx, t, func() {
		pid, _ := f.daemon(f.apiServer()).PID()
		for range 3 {
			f.signal(t, []int{pid}, unix.SIGSTOP)
			time.Sleep(5 * time.Second) // how long the fault lasts
			f.signal(t, []int{pid}, unix.SIGCONT)
			time.Sleep(time.Second)
		}
		f.follows(ctx, t, "slow")
	})
}

// apiAway kills one process of each part of Hythe while there is no API server.
func (f *faults) apiAway(ctx context.Context, t *testing.T) {
	away := time.Minute
	if text := os.Getenv("HYTHE_API_AWAY"); text != "" {
		var err error
		if away, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	victim := f.other(t)
	f.lossless(ctx, t, func() {
		back := time.After(away)
		if err := f.kill(cluster.APIServerDaemon); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := f.restart(ctx, cluster.APIServerDaemon); err != nil {
				t.Fatal(err)
			}
		}()
		for _, part := range []string{"gateway", "node", "controller"} {
			node := victim
			old := f.processes(node, part)
			for _, n := range f.Nodes {
				if len(old) == 0 { // the controller is not everywhere
					node = n.Name
					old = f.processes(node, part)
				}
			}
			f.signal(t, old[:min(len(old), 1)], unix.SIGKILL)
			if part == "controller" {
				continue // it has nothing to do without an API server
			}
			f.until(ctx, t, func(context.Context) (string, error) {
				if now := f.processes(node, part); len(now) == 0 || now[0] == old[0] {
					return "a new " + part + " on " + node, nil
				}
				return "", nil
			})
		}
		<-back
	})
	f.lossless(ctx, t, func() { f.follows(ctx, t, "away") })
}

// compacted makes etcd forget what a node and the leading controller have not seen yet, and the API server its own memory of it.
func (f *faults) compacted(ctx context.Context, t *testing.T) {
	node := f.other(t)
	t.Cleanup(func() { // also if it gives up, and what an earlier test left
		_, err := f.kubectl(context.WithoutCancel(ctx), "", "delete", "service/compacted", "ingress/compacted", "-n", "smoke", "--ignore-not-found")
		if err != nil {
			t.Error(err)
		}
	})
	f.lossless(ctx, t, func() {
		var stopped []int
		defer func() {
			for _, pid := range stopped {
				_ = unix.Kill(pid, unix.SIGCONT) // it may have been killed by its probe
			}
		}()
		for _, part := range []string{"node", "gateway", "controller"} {
			stopped = append(stopped, f.processes(node, part)...)
		}
		f.signal(t, stopped, unix.SIGSTOP)
		for range 20 {
			f.must(ctx, t, "", "annotate", "--overwrite", "-n", "smoke", "service/web", "service/by-port", "ingress/web", "note="+newUUID())
		}
		f.must(ctx, t, ingressText("compacted", "smoke", "web"), "apply", "-f", "-")
		f.must(ctx, t, "", "expose", "deployment", "web", "-n", "smoke", "--name", "compacted", "--type", "NodePort", "--port", "80", "--target-port", "8080")
		f.compact(ctx, t)
		if err := f.restart(ctx, cluster.APIServerDaemon); err != nil {
			t.Fatal(err)
		}
		f.signal(t, stopped, unix.SIGCONT)
		port := f.jsonPath(ctx, t, "service/compacted", "{.spec.ports[0].nodePort}")
		n, _ := f.Node(node)
		f.eventually(ctx, t, func(ctx context.Context) error { return f.askPlain(ctx, n.Address.String()+":"+port) })
		f.eventually(ctx, t, func(ctx context.Context) error { return f.askHost(ctx, "compacted") })
	})
}

// compact asks etcd by its JSON gateway.
func (f *faults) compact(ctx context.Context, t *testing.T) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return topology.Dial(ctx, cluster.Namespace(cluster.Control), network, address)
	}}}
	call := func(path, body string) []byte {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:2379"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("etcd: %s %s %v", resp.Status, out, err)
		}
		return out
	}
	var status struct{ Header struct{ Revision string } }
	if err := json.Unmarshal(call("/v3/maintenance/status", "{}"), &status); err != nil {
		t.Fatal(err)
	}
	call("/v3/kv/compaction", `{"physical": true, "revision": "`+status.Header.Revision+`"}`)
}

// leader is the pod that holds the Lease, and its process.
func (f *faults) leader(ctx context.Context, t *testing.T) (holder string, pid int) {
	t.Helper()
	holder = f.must(ctx, t, "", "get", "lease", "hythe-controller", "-n", namespace, "-o", "jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	for _, n := range f.Nodes {
		for _, pid := range f.processes(n.Name, "controller") {
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err == nil && strings.Contains("\x00"+string(environ), "\x00HOSTNAME="+pod+"\x00") {
				return holder, pid
			}
		}
	}
	t.Fatalf("no process of the leader %s", holder)
	return "", 0
}

func (f *faults) newLeader(ctx context.Context, t *testing.T, old string) {
	t.Helper()
	f.until(ctx, t, func(ctx context.Context) (string, error) {
		now, err := f.kubectl(ctx, "", "get", "lease", "hythe-controller", "-n", namespace, "-o", "jsonpath={.spec.holderIdentity}")
		if err == nil && (string(now) == old || len(now) == 0) {
			return "another leader than " + old, nil
		}
		return "", err
	})
}

// service makes a LoadBalancer Service and returns its address once it answers.
func (f *faults) service(ctx context.Context, t *testing.T, name string) string {
	t.Helper()
	f.must(ctx, t, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s, namespace: smoke}
spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`, name), "apply", "-f", "-")
	address := ""
	f.eventually(ctx, t, func(ctx context.Context) error {
		out, err := f.kubectl(ctx, "", "get", "-n", "smoke", "service/"+name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err != nil {
			return err
		}
		address = string(out)
		return f.askPlain(ctx, address+":80")
	})
	return address
}

func (f *faults) leaderKilled(ctx context.Context, t *testing.T) {
	f.lossless(ctx, t, func() {
		holder, pid := f.leader(ctx, t)
		f.signal(t, []int{pid}, unix.SIGKILL)
		f.newLeader(ctx, t, holder)
		f.service(ctx, t, "killed")
		f.must(ctx, t, "", "delete", "service/killed", "-n", "smoke")
	})
}

// leaderStopped has two that think they lead, until the one that slept looks at the clock.
func (f *faults) leaderStopped(ctx context.Context, t *testing.T) {
	f.lossless(ctx, t, func() {
		holder, pid := f.leader(ctx, t)
		f.signal(t, []int{pid}, unix.SIGSTOP)
		defer func() { _ = unix.Kill(pid, unix.SIGCONT) }() // it may have been killed by its probe
		f.newLeader(ctx, t, holder)
		seen := map[string]string{f.vip: "the gateway", f.byAddress: "by-address"}
		take := func(name string) {
			address := f.service(ctx, t, name)
			if by, ok := seen[address]; ok {
				t.Errorf("%s has %s, as %s has", name, address, by)
			}
			seen[address] = name
		}
		take("second-1")
		f.signal(t, []int{pid}, unix.SIGCONT)
		take("second-2")
		take("second-3")
		for address, name := range seen {
			if !strings.HasPrefix(name, "second-") {
				continue
			}
			if now := f.jsonPath(ctx, t, "service/"+name, "{.status.loadBalancer.ingress[*].ip}"); now != address {
				t.Errorf("%s had %s, has %s", name, address, now)
			}
		}
		f.must(ctx, t, "", "delete", "service/second-1", "service/second-2", "service/second-3", "-n", "smoke")
	})
}
