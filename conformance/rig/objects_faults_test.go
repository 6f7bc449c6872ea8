package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
)

// usedText is a namespace with a server, a Service of it and an Ingress with TLS.
const usedText = `apiVersion: v1
kind: Namespace
metadata: {name: used}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: used}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: AGNHOST
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: used}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: hythe.dev/v1alpha1
kind: AddressPool
metadata: {name: used}
spec: {addresses: [203.0.113.60-203.0.113.61], autoAssign: false}
---
apiVersion: v1
kind: Service
metadata:
  name: pooled
  namespace: used
  annotations: {hythe.dev/address-pool: used}
spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
`

// deletedInUse takes away, one by one, what serves; the rest goes on.
func (f *faults) deletedInUse(ctx context.Context, t *testing.T) {
	t.Cleanup(func() {
		_, err := f.kubectl(context.WithoutCancel(ctx), "", "delete", "namespace/used", "addresspool/used", "--ignore-not-found", "--timeout", "60s")
		if err != nil {
			t.Error(err)
		}
	})
	f.must(ctx, t, strings.ReplaceAll(usedText, "AGNHOST", cluster.AgnhostImage)+ingressText("used", "used", "web")+ingressText("kept", "used", "web"), "apply", "-f", "-")
	f.must(ctx, t, "", "create", "secret", "tls", "used", "-n", "used", "--cert", f.Path("pki", "smoke.crt"), "--key", f.Path("pki", "smoke.key"))
	f.until(ctx, t, func(ctx context.Context) (string, error) { return f.incomplete(ctx, "used") })
	f.lossless(ctx, t, func() {
		f.eventually(ctx, t, func(ctx context.Context) error { return errors.Join(f.askHost(ctx, "used"), f.askHost(ctx, "kept")) })
		pooled := ""
		f.eventually(ctx, t, func(ctx context.Context) error {
			out, err := f.kubectl(ctx, "", "get", "-n", "used", "service/pooled", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
			if err != nil {
				return err
			}
			pooled = string(out)
			return f.askPlain(ctx, pooled+":80")
		})
		t.Run("Pool", func(t *testing.T) { // who has an address keeps it
			f.must(ctx, t, "", "delete", "addresspool/used", "--wait=false")
			f.until(ctx, t, func(ctx context.Context) (string, error) {
				out, err := f.problems(ctx)
				if err == nil && !strings.Contains(out, "used/pooled") {
					return "a Problem of used/pooled in:\n" + out, nil
				}
				return "", err
			})
			if err := f.askPlain(ctx, pooled+":80"); err != nil {
				t.Errorf("a Service whose pool is gone: %v", err)
			}
		})
		t.Run("Ingress", func(t *testing.T) {
			f.must(ctx, t, "", "delete", "ingress/used", "-n", "used")
			f.eventually(ctx, t, func(ctx context.Context) error { return f.askStatus(ctx, "used", http.StatusNotFound) })
		})
		t.Run("Service", func(t *testing.T) {
			f.must(ctx, t, "", "delete", "service/web", "-n", "used")
			f.eventually(ctx, t, func(ctx context.Context) error { return f.askStatus(ctx, "kept", http.StatusServiceUnavailable) })
		})
		t.Run("Namespace", func(t *testing.T) { // its finalizers end
			f.must(ctx, t, "", "delete", "namespace/used", "--timeout", "120s")
			f.eventually(ctx, t, func(ctx context.Context) error { return f.askStatus(ctx, "kept", http.StatusNotFound) })
			f.eventually(ctx, t, func(ctx context.Context) error {
				if f.askPlain(ctx, pooled+":80") == nil {
					return errors.New("the address of a Service that is gone answers")
				}
				return nil
			})
		})
	})
	t.Run("Secret", func(t *testing.T) { // another certificate is served, which the client does not trust
		f.must(ctx, t, "", "delete", "secret/smoke", "-n", "smoke")
		f.eventually(ctx, t, func(ctx context.Context) error {
			if err := f.askIngress(ctx); err == nil || !strings.Contains(err.Error(), "certificate") {
				return fmt.Errorf("without its Secret: %w", errors.Join(err, errors.New("want another certificate")))
			}
			return nil
		})
		f.must(ctx, t, "", "create", "secret", "tls", "smoke", "-n", "smoke", "--cert", f.Path("pki", "smoke.crt"), "--key", f.Path("pki", "smoke.key"))
		f.eventually(ctx, t, f.askIngress)
	})
}

// problems is what hythe get problems says.
func (f *faults) problems(ctx context.Context) (string, error) {
	out, err := f.command(ctx, "", f.hythe, "get", "problems", "--kubeconfig", f.Kubeconfig())
	return string(out), err
}

// named waits until a Problem is there, or is no more.
func (f *faults) named(ctx context.Context, t *testing.T, reason string, want bool) {
	t.Helper()
	f.until(ctx, t, func(ctx context.Context) (string, error) {
		out, err := f.problems(ctx)
		if err == nil && strings.Contains(out, reason) != want {
			return fmt.Sprintf("Problem %s shall be there: %v; there are:\n%s", reason, want, out), nil
		}
		return "", err
	})
}

// memory sums what Hythe's processes use.
func (f *faults) memory(part string) (mib uint64) {
	for _, n := range f.Nodes {
		mib += host.Memory(f.processes(n.Name, part)) >> 20
	}
	return mib
}

// many makes thousands of Ingresses and Services at once.
func (f *faults) many(ctx context.Context, t *testing.T) {
	count := 2000
	if text := os.Getenv("HYTHE_MANY"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := f.kubectl(context.WithoutCancel(ctx), "", "delete", "namespace", "many", "--ignore-not-found", "--timeout", "180s"); err != nil {
			t.Error(err)
		}
	})
	text := strings.ReplaceAll(usedText, "AGNHOST", cluster.AgnhostImage)
	text, _, _ = strings.Cut(text, "---\napiVersion: hythe.dev")
	f.must(ctx, t, strings.ReplaceAll(text, "used", "many"), "apply", "-f", "-")
	f.until(ctx, t, func(ctx context.Context) (string, error) { return f.incomplete(ctx, "many") })
	before := fmt.Sprintf("agents %d, gateways %d, controllers %d MiB", f.memory("node"), f.memory("gateway"), f.memory("controller"))
	since := time.Now()
	lost := f.underTraffic(ctx, t, func() {
		begun := time.Now()
		g, gctx := errgroup.WithContext(ctx)
		const chunks = 4
		for c := range chunks {
			var b strings.Builder
			for i := c; i < count; i += chunks {
				name := "many-" + strconv.Itoa(i)
				fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: many}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n---\n", name)
				b.WriteString(ingressText(name, "many", name))
			}
			g.Go(func() error {
				_, err := f.kubectl(gctx, b.String(), "create", "--validate=false", "-f", "-")
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		made := time.Since(begun)
		f.until(ctx, t, func(ctx context.Context) (string, error) {
			for _, i := range []int{0, count / 2, count - 4, count - 3, count - 2, count - 1} {
				if err := f.askHost(ctx, "many-"+strconv.Itoa(i)); err != nil {
					return "", err
				}
			}
			return "", nil
		})
		served := time.Since(begun)
		f.until(ctx, t, func(ctx context.Context) (string, error) { // each has its address in its status
			out, err := f.kubectl(ctx, "", "get", "ingresses", "-n", "many", "-o", "jsonpath={.items[*].status.loadBalancer.ingress[0].ip}")
			if n := len(strings.Fields(string(out))); err == nil && n < count {
				return fmt.Sprintf("%d of %d Ingresses have an address", n, count), nil
			}
			return "", err
		})
		t.Logf("%d Ingresses and Services: made in %.1fs, served after %.1fs, status after %.1fs; before: %s; now: agents %d, gateways %d, controllers %d MiB",
			count, made.Seconds(), served.Seconds(), time.Since(begun).Seconds(), before, f.memory("node"), f.memory("gateway"), f.memory("controller"))
		f.follows(ctx, t, "one-more")
		f.must(ctx, t, "", "delete", "namespace", "many", "--timeout", "180s")
		f.eventually(ctx, t, func(ctx context.Context) error { return f.askStatus(ctx, "many-0", http.StatusNotFound) })
	})
	// Where nodes, control plane and client share too few processors, a node's heartbeats stop for the time after which
	// another takes its VIPs, and that resets connections. Each move may cost what was open; nothing else may.
	moves := f.moves(ctx, t, since)
	for _, err := range lost {
		t.Logf("%d moves of VIPs: %v", moves, err)
	}
	if len(lost) > 2*moves {
		t.Errorf("%d requests were lost, and VIPs moved %d times", len(lost), moves)
	}
}

// moves counts how often an agent took a VIP from one that was silent.
func (f *faults) moves(ctx context.Context, t *testing.T, since time.Time) int {
	t.Helper()
	out := f.must(ctx, t, "", "logs", "-n", namespace, "-l", "app.kubernetes.io/component=node", "--tail=-1", "--since-time="+since.UTC().Format(time.RFC3339))
	return strings.Count(out, "reason=OwnerDead")
}

// hostNetwork has a server in a node's own network behind an Ingress.
func (f *faults) hostNetwork(ctx context.Context, t *testing.T) {
	t.Cleanup(func() {
		_, err := f.kubectl(context.WithoutCancel(ctx), "", "delete", "-n", "smoke", "pod/in-host", "service/in-host", "ingress/in-host", "--ignore-not-found")
		if err != nil {
			t.Error(err)
		}
	})
	f.lossless(ctx, t, func() {
		n := f.Nodes[0]
		f.must(ctx, t, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: in-host, namespace: smoke, labels: {app: in-host}}
spec:
  hostNetwork: true
  nodeName: %s
  containers:
  - {name: web, image: %s, args: [netexec, --http-port=18080, --udp-port=-1], readinessProbe: {httpGet: {path: /hostname, port: 18080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: in-host, namespace: smoke}
spec: {type: NodePort, selector: {app: in-host}, ports: [{port: 80, targetPort: 18080}]}
---
`, n.Name, cluster.AgnhostImage)+ingressText("in-host", "smoke", "in-host"), "apply", "-f", "-")
		f.eventually(ctx, t, func(ctx context.Context) error { return f.askHost(ctx, "in-host") })
		url := n.Address.String() + ":18080"
		f.eventually(ctx, t, func(ctx context.Context) error { return f.ask(ctx, url, "http://"+url+"/hostname", n.Name) })
		port := f.jsonPath(ctx, t, "service/in-host", "{.spec.ports[0].nodePort}")
		for _, m := range f.Nodes { // from each node, its own included
			url := m.Address.String() + ":" + port
			f.eventually(ctx, t, func(ctx context.Context) error { return f.ask(ctx, url, "http://"+url+"/hostname", n.Name) })
		}
		// It reaches Services and names, as a pod with an address of its own does.
		clusterIP := f.jsonPath(ctx, t, "service/web", "{.spec.clusterIP}")
		f.eventually(ctx, t, func(ctx context.Context) error {
			out, err := f.kubectl(ctx, "", "exec", "-n", "smoke", "in-host", "--", "curl", "-sSm", "3", "http://"+clusterIP+"/hostname")
			if err == nil && !strings.HasPrefix(string(out), "web-") {
				err = fmt.Errorf("unexpected answer %q", out)
			}
			return err
		})
	})
}

// runOn runs a program on a node.
func (f *faults) runOn(node, program string, args ...string) error {
	_, err := f.outputOn(node, program, args...)
	return err
}

// outputOn is what a program on a node prints.
func (f *faults) outputOn(node, program string, args ...string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := f.hostNode(node).Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s %s on %s: %w: %s", program, strings.Join(args, " "), node, err, out.String())
	}
	return out.String(), nil
}

// kubeProxyBeside starts the real kube-proxy on one node.
func (f *faults) kubeProxyBeside(ctx context.Context, t *testing.T) {
	peer := f.Cluster
	peer.Flavour = cluster.Peer
	daemons := peer.NodeDaemons(f.Nodes[0])
	proxy := f.daemon(daemons[len(daemons)-1])
	f.lossless(ctx, t, func() {
		if err := proxy.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(proxy.Kill(), f.runOn(f.Nodes[0].Name, f.Binary(cluster.KubeProxy), "--cleanup")); err != nil {
				t.Error(err)
			}
		}()
		f.named(ctx, t, "ProxyBeside", true)
		f.follows(ctx, t, "beside")
	})
	f.lossless(ctx, t, func() { f.named(ctx, t, "ProxyBeside", false) })
}

// diskFull gives one node a disk of 2 MiB and fills it.
func (f *faults) diskFull(ctx context.Context, t *testing.T) {
	node := f.other(t)
	const data, aside = "/var/lib/hythe", "/run/hythe-aside"
	restart := func(t *testing.T) {
		t.Helper()
		f.must(ctx, t, "", "delete", "pod", "-n", namespace, "-l", "app.kubernetes.io/component=node", "--field-selector", "spec.nodeName="+node)
		f.whole(ctx, t, namespace)
	}
	sh := func(script string) {
		t.Helper()
		if err := f.runOn(node, "sh", "-ec", script); err != nil {
			t.Fatal(err)
		}
	}
	f.lossless(ctx, t, func() {
		sh("cp -a " + data + " " + aside + "; mount -t tmpfs -o size=2m,mode=755 tmpfs " + data + "; cp -a " + aside + "/. " + data)
		defer func() {
			sh("rm -f " + data + "/filler; cp -a " + data + "/. " + aside + "; umount -l " + data + "; cp -a " + aside + "/. " + data + "; rm -rf " + aside)
			restart(t)
		}()
		restart(t)
		sh("cat /dev/zero > " + data + "/filler 2>/dev/null || true")
		n, _ := f.Node(node)
		f.must(ctx, t, "", "expose", "deployment", "web", "-n", "smoke", "--name", "full", "--type", "NodePort", "--port", "80", "--target-port", "8080")
		defer func() { f.must(ctx, t, "", "delete", "service/full", "-n", "smoke") }()
		port := f.jsonPath(ctx, t, "service/full", "{.spec.ports[0].nodePort}")
		f.eventually(ctx, t, func(ctx context.Context) error { return f.askPlain(ctx, n.Address.String()+":"+port) })
		f.named(ctx, t, "no space left", true)
		// An agent that dies comes back on a full disk.
		f.renewed(ctx, t, node)
		f.eventually(ctx, t, func(ctx context.Context) error { return f.askPlain(ctx, n.Address.String()+":"+port) })
		sh("rm " + data + "/filler")
		f.named(ctx, t, "no space left", false)
	})
}
