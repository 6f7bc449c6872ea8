package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
	"hythe.dev/hythe/internal/lab/topology"
)

// up makes the cluster. In one that is there already what is dead is started; one that was
// half made is removed first.
func (r *rig) up(ctx context.Context, bare bool) error {
	old, there, err := load(r.Dir)
	if err != nil {
		return err
	}
	if there && r.standing(old) {
		if old.Flavour != r.Flavour || len(old.Nodes) != len(r.Nodes) || old.TwoAPIServers != r.TwoAPIServers || old.DualStack != r.DualStack {
			return fmt.Errorf("a cluster of flavour %s with %d nodes and %d API servers runs: make cluster-down first", old.Flavour, len(old.Nodes), len(old.APIServers()))
		}
		r.say("the cluster is there already")
		r.Nodes = old.Nodes
		if err := r.mend(ctx); err != nil {
			return err
		}
		if !bare { // they may have been built again since
			if err := r.loadProduct(ctx); err != nil {
				return err
			}
		}
	} else if err := r.make(ctx); err != nil {
		return err
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	if bare || !r.WithHythe() {
		return nil
	}
	return r.install(ctx)
}

// standing says whether anything of a cluster runs. After a boot of the machine nothing does.
func (r *rig) standing(c cluster.Cluster) bool {
	known := &rig{Cluster: c}
	for _, d := range known.daemons() {
		if _, ok := known.daemon(d).PID(); ok {
			return true
		}
	}
	return false
}

// mend starts what is dead.
func (r *rig) mend(ctx context.Context) error {
	for _, d := range r.ControlPlane() {
		if err := r.daemon(d).Start(); err != nil {
			return err
		}
	}
	if err := r.waitAPI(ctx); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if _, on := r.hostNode(n.Name).InitPID(); !on {
			if err := r.reboot(ctx, n); err != nil {
				return err
			}
			continue
		}
		for _, d := range r.NodeDaemons(n) {
			if err := r.daemon(d).Start(); err != nil {
				return err
			}
		}
	}
	return nil
}

// make builds the cluster up to registered nodes.
func (r *rig) make(ctx context.Context) error {
	if err := r.down(); err != nil {
		return err
	}
	if err := r.writeFiles(); err != nil {
		return err
	}
	if err := plug(r.Topology(), r.Addresses()); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if err := plug(r.NodeTopology(n), r.NodeAddresses(n)); err != nil {
			return err
		}
	}
	if r.TwoAPIServers {
		link, address := cluster.SecondAddress()
		if err := host.AddAddress(cluster.Namespace(cluster.Control), link, address); err != nil {
			return err
		}
	}
	r.say("%d nodes, router and client are on the LAN", len(r.Nodes))
	images, err := r.images()
	if err != nil {
		return err
	}
	r.say("%d images are built", len(images))
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.startControlPlane(gctx) })
	ready := make(chan struct{})
	for _, n := range r.Nodes {
		g.Go(func() error { return r.startNode(gctx, n, images, ready) })
	}
	g.Go(func() error {
		defer close(ready)
		return r.waitAPI(gctx)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if _, err := r.kubectl(ctx, cluster.DNSManifests(), "apply", "-f", "-"); err != nil {
		return err
	}
	return r.save()
}

// plug makes machines and cables, and adds the addresses of the second family.
func plug(plan topology.Plan, addresses []cluster.Address) error {
	if err := topology.Up(plan); err != nil {
		return err
	}
	for _, a := range addresses {
		if err := host.AddAddress(a.Namespace, a.Interface, a.Address); err != nil {
			return err
		}
		if !a.Gateway.IsValid() {
			continue
		}
		if err := host.SetRoute(a.Namespace, netip.PrefixFrom(netip.IPv6Unspecified(), 0), a.Gateway); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles writes keys, configurations, and the rig's own program, from which nodes are started.
func (r *rig) writeFiles() error {
	if err := writeAuthority(r.Cluster); err != nil {
		return err
	}
	for _, cert := range r.Certificates() {
		if err := issue(r.Cluster, cert); err != nil {
			return err
		}
	}
	for _, n := range r.Nodes {
		if err := r.writeNodeFiles(n); err != nil {
			return err
		}
	}
	admin, err := r.portableKubeconfig()
	if err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("copy the rig's program: %w", err)
	}
	return errors.Join(
		writeFile(r.Kubeconfig(), admin, 0o600),
		writeFile(r.Path("config", "containerd.toml"), cluster.ContainerdConfig(), 0o644),
		writeFile(r.Path("rig"), string(self), 0o755),
		r.writeTools(),
		os.MkdirAll(r.Path("logs"), 0o755),
	)
}

// writeTools puts kubectl and helm, as they talk to this cluster, into the product's bin.
func (r *rig) writeTools() error {
	var errs []error
	for _, tool := range []string{"kubectl", "helm"} {
		script := fmt.Sprintf("#!/bin/sh\nKUBECONFIG=${KUBECONFIG:-%s} exec %s \"$@\"\n", r.Kubeconfig(), r.Binary(tool))
		errs = append(errs, writeFile(filepath.Join(r.source, "bin", tool), script, 0o755))
	}
	return errors.Join(errs...)
}

func (r *rig) writeNodeFiles(n cluster.Node) error {
	if err := issue(r.Cluster, r.NodeCertificate(n)); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Path("logs", n.Name), 0o755); err != nil {
		return fmt.Errorf("make folder for logs: %w", err)
	}
	return writeFile(r.Path("config", "kubelet-"+n.Name+".yaml"), r.KubeletConfig(n), 0o644)
}

// portableKubeconfig is the administrator's kubeconfig with everything in it.
func (r *rig) portableKubeconfig() (string, error) {
	out, err := exec.Command(r.Binary("kubectl"), "--kubeconfig", r.Path("config", "admin.kubeconfig"), "config", "view", "--flatten", "--raw").Output()
	if err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return string(out), nil
}

func (r *rig) startControlPlane(ctx context.Context) error {
	for _, d := range r.ControlPlane() {
		if d.Name == cluster.ControllerManager {
			// Without API servers the others only write errors to their logs.
			if err := r.waitAPI(ctx); err != nil {
				return err
			}
		}
		if err := r.daemon(d).Start(); err != nil {
			return err
		}
	}
	return nil
}

// waitAPI waits until all API servers say that they are ready.
func (r *rig) waitAPI(ctx context.Context) error {
	for _, server := range r.APIServers() {
		if err := r.waitServer(ctx, server); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) waitServer(ctx context.Context, server netip.AddrPort) error {
	ca, err := os.ReadFile(r.Path("pki", "ca.crt"))
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
	}}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return r.wait(ctx, "the API server is ready", func() (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server.String()+"/readyz", nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
			return "", errors.Join(err, fmt.Errorf("%s: %s", resp.Status, text))
		}
		return "", nil
	})
}

// startNode boots a node and starts its daemons, the kubelet not before the API server is ready.
func (r *rig) startNode(ctx context.Context, n cluster.Node, images []string, api <-chan struct{}) error {
	node := r.hostNode(n.Name)
	if err := node.Boot(newUUID()); err != nil {
		return err
	}
	if r.OwnNetwork() {
		if err := r.copyPlugins(n); err != nil {
			return err
		}
	}
	daemons := r.NodeDaemons(n)
	if err := r.daemon(daemons[0]).Start(); err != nil {
		return err
	}
	if err := r.importImages(ctx, node, images); err != nil {
		return err
	}
	select {
	case <-api:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, d := range daemons[1:] {
		if err := r.daemon(d).Start(); err != nil {
			return err
		}
	}
	return nil
}

// copyPlugins installs Debian's CNI plugins where containerd looks for them.
func (r *rig) copyPlugins(n cluster.Node) error {
	for _, name := range []string{"bridge", "host-local", "portmap", "loopback"} {
		data, err := os.ReadFile(filepath.Join("/usr/lib/cni", name))
		if err != nil {
			return fmt.Errorf("install CNI plugin: %w: scripts/setup.sh cluster installs it", err)
		}
		if err := writeFile(r.Path("nodes", n.Name, "opt", "cni", "bin", name), string(data), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// importImages gives images to a node's containerd, once it answers.
func (r *rig) importImages(ctx context.Context, node *host.Node, images []string) error {
	ctr := func(args ...string) error {
		cmd := exec.Command("ctr", append([]string{"--namespace", "k8s.io"}, args...)...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := node.Start(cmd); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("ctr %s on %s: %w: %s", strings.Join(args, " "), node.Name, err, out.String())
		}
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := r.wait(wait, "containerd of "+node.Name+" answers", func() (string, error) { return "", ctr("version") }); err != nil {
		return err
	}
	for _, image := range images {
		if err := ctr("images", "import", image); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the nodes are registered, and gives machines the routes to pods that they need.
func (r *rig) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cidrs := map[string][]netip.Prefix{}
	err := r.wait(ctx, fmt.Sprintf("%d nodes are registered", len(r.Nodes)), func() (string, error) {
		var list nodeList
		if err := r.get(ctx, &list, "nodes"); err != nil {
			return "", err
		}
		for _, n := range list.Items {
			if len(n.Spec.PodCIDRs) > 0 {
				cidrs[n.Metadata.Name] = n.Spec.PodCIDRs
			}
		}
		if len(cidrs) < len(r.Nodes) {
			return fmt.Sprintf("%d of %d nodes have a pod CIDR", len(cidrs), len(r.Nodes)), nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	for _, route := range r.Routes(cidrs) {
		if err := host.SetRoute(route.Namespace, route.To, route.Via); err != nil {
			return err
		}
	}
	if !r.OwnNetwork() {
		return nil
	}
	for _, n := range r.Nodes {
		// Written last: the kubelet calls the node Ready once it is there.
		file, err := r.hostNode(n.Name).Path("/etc/cni/net.d/10-bridge.conflist")
		if err == nil {
			err = writeFile(file, cluster.BridgeConfig(cidrs[n.Name]), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return r.waitReady(ctx)
}

// waitReady waits for Ready nodes and for DNS.
func (r *rig) waitReady(ctx context.Context) error {
	err := r.wait(ctx, "all nodes are Ready", func() (string, error) {
		var list nodeList
		if err := r.get(ctx, &list, "nodes"); err != nil {
			return "", err
		}
		var not []string
		for _, n := range list.Items {
			if !isTrue(n.Status.Conditions, "Ready") {
				not = append(not, n.Metadata.Name)
			}
		}
		if len(not) > 0 {
			return "NotReady: " + strings.Join(not, ", "), nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	return r.wait(ctx, "CoreDNS is ready", func() (string, error) { return r.incomplete(ctx, "kube-system") })
}

func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
