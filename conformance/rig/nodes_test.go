package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/conformance/rig/cluster"
)

// joinWithoutCIDR adds a node while nobody gives pod CIDRs to nodes: it gets an Event with the remedy, and works once there
// is somebody.
func (f *faults) joinWithoutCIDR(ctx context.Context, t *testing.T, n cluster.Node) {
	t.Helper()
	found, err := f.find(cluster.ControllerManager)
	if err != nil {
		t.Fatal(err)
	}
	without := found[0]
	without.Args = slices.Clone(without.Args)
	i := slices.Index(without.Args, "--allocate-node-cidrs=true")
	if i < 0 {
		t.Fatal("the controller manager is not told to give pod CIDRs")
	}
	without.Args[i] = "--allocate-node-cidrs=false"
	without.Args = slices.DeleteFunc(without.Args, func(arg string) bool { return strings.HasPrefix(arg, "--cluster-cidr=") })
	if err := f.kill(cluster.ControllerManager); err != nil {
		t.Fatal(err)
	}
	if err := f.daemon(without).Start(); err != nil {
		t.Fatal(err)
	}
	err = f.bootNew(ctx)
	if err == nil {
		f.until(ctx, t, func(ctx context.Context) (string, error) {
			out, err := f.kubectl(ctx, "", "get", "events", "--all-namespaces", "--field-selector", "involvedObject.kind=Node,involvedObject.name="+n.Name, "-o", "jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}")
			if err == nil && !strings.Contains(string(out), "--allocate-node-cidrs") {
				return "an Event of " + n.Name + " with the remedy in:\n" + string(out), nil
			}
			return "", err
		})
		if ready := f.must(ctx, t, "", "get", "node", n.Name, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"); ready != "False" {
			t.Errorf("Ready of a node without pod CIDR is %q", ready)
		}
	}
	if err := errors.Join(err, f.restart(ctx, cluster.ControllerManager), f.settle(ctx)); err != nil {
		t.Fatal(err)
	}
}

// mesh has each server ask each other one by its own address, not by a Service.
func (f *faults) mesh(ctx context.Context, t *testing.T) {
	t.Helper()
	pods, err := f.pods(ctx, "--namespace", "smoke", "--selector", "app=web")
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) < 2 {
		t.Fatalf("%d servers: want some that reach each other", len(pods))
	}
	for _, from := range pods {
		for _, to := range pods {
			f.eventually(ctx, t, func(ctx context.Context) error {
				out, err := f.kubectl(ctx, "", "exec", "-n", "smoke", from.name, "--", "curl", "-sSm", "3", "http://"+to.address.String()+":8080/hostname")
				if err == nil && string(out) != to.name {
					err = fmt.Errorf("%s asked %s and got %q", from.name, to.name, out)
				}
				return err
			})
		}
	}
}

// forgotten waits until no agent has a text, an old address, in anything that it wants of the kernel or knows of other nodes.
func (f *faults) forgotten(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	f.until(ctx, t, func(context.Context) (string, error) {
		for _, n := range f.Nodes {
			for _, command := range []string{
				"curl -sSm 5 http://127.0.0.1:9903/debug/overlay http://127.0.0.1:9903/debug/services http://127.0.0.1:9903/debug/vips",
				"ip route", "ip neigh show dev hythe.vxlan", "bridge fdb show dev hythe.vxlan", "ip -d link show hythe.vxlan", "cat /etc/cni/net.d/*.conflist", "nft list table inet hythe",
			} {
				out, err := f.outputOn(n.Name, "sh", "-ec", command)
				if err != nil {
					return "", err
				}
				for line := range strings.Lines(out) {
					if strings.Contains(line, text) {
						return fmt.Sprintf("on %s, %s has still %s", n.Name, command, strings.TrimSpace(line)), nil
					}
				}
			}
		}
		return "", nil
	})
}

// heard waits until each agent hears the heartbeats of all others.
func (f *faults) heard(ctx context.Context, t *testing.T) {
	t.Helper()
	f.until(ctx, t, func(context.Context) (string, error) {
		for _, n := range f.Nodes {
			out, err := f.outputOn(n.Name, "curl", "-sSm", "5", "http://127.0.0.1:9903/debug/vips")
			if err != nil {
				return "", err
			}
			for _, other := range f.Nodes {
				if other.Name != n.Name && !strings.Contains(out, "member "+other.Name+" heard=") {
					return fmt.Sprintf("%s does not hear %s", n.Name, other.Name), nil
				}
			}
		}
		return "", nil
	})
}

// nodeReaddressed gives a node another address, without a word before.
func (f *faults) nodeReaddressed(ctx context.Context, t *testing.T) {
	name := f.other(t)
	n, _ := f.Node(name)
	old := n.Address
	bytes := old.As4()
	bytes[3] += 10
	for _, to := range []netip.Addr{netip.AddrFrom4(bytes), old} {
		from := n.Address
		begun := time.Now()
		lost := f.underTraffic(ctx, t, func() {
			if err := f.readdress(ctx, name, to); err != nil {
				t.Fatal(err)
			}
			f.mesh(ctx, t)
			t.Logf("%s is %s: pods reach each other %.1fs later", name, to, time.Since(begun).Seconds())
			f.forgotten(ctx, t, from.String())
			f.heard(ctx, t)
			t.Logf("%s is forgotten %.1fs later", from, time.Since(begun).Seconds())
		})
		for _, err := range lost {
			t.Logf("after %s changed: %v", name, err)
		}
		n, _ = f.Node(name)
		f.quiet(ctx, t)
		f.lossless(ctx, t, func() {
			f.askNodePort(ctx, t, n)
			f.follows(ctx, t, "readdressed")
		})
	}
}

// nodeRenumbered gives a node another pod CIDR: once when it was drained before, once with all that runs on it.
func (f *faults) nodeRenumbered(ctx context.Context, t *testing.T) {
	name := f.other(t)
	cidr := func() string { return f.must(ctx, t, "", "get", "node", name, "-o", "jsonpath={.spec.podCIDR}") }
	f.lossless(ctx, t, func() {
		f.must(ctx, t, "", "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
		f.renumberTo(ctx, t, name, cidr)
	})
	lost := f.underTraffic(ctx, t, func() { f.renumberTo(ctx, t, name, cidr) })
	for _, err := range lost {
		t.Logf("while pods of %s had addresses of before: %v", name, err)
	}
	f.lossless(ctx, t, func() { f.follows(ctx, t, "renumbered") })
}

func (f *faults) renumberTo(ctx context.Context, t *testing.T, name string, cidr func() string) {
	t.Helper()
	old := cidr()
	if err := f.renumber(ctx, name); err != nil {
		t.Fatal(err)
	}
	if now := cidr(); now == old || now == "" {
		t.Fatalf("%s has the pod CIDR %q, before %q", name, now, old)
	}
	// Pods that go on with addresses of before are lost to other nodes. That is said, and a person deletes them.
	f.until(ctx, t, func(ctx context.Context) (string, error) {
		strays, err := f.pods(ctx, "--all-namespaces", "--field-selector", "spec.nodeName="+name)
		strays = slices.DeleteFunc(strays, func(p pod) bool { return !netip.MustParsePrefix(old).Contains(p.address) })
		if err != nil || len(strays) == 0 {
			return "", err
		}
		problems, err := f.problems(ctx)
		if err != nil || !strings.Contains(problems, "PodOutsideCIDR") {
			return fmt.Sprintf("Problem PodOutsideCIDR of %v", strays), err
		}
		for _, p := range strays {
			if _, err := f.kubectl(ctx, "", "delete", "pod", "-n", p.namespace, p.name, "--wait=false", "--ignore-not-found"); err != nil {
				return "", err
			}
		}
		t.Logf("deleted are %v", strays)
		return "", nil
	})
	f.named(ctx, t, "PodOutsideCIDR", false)
	for _, ns := range []string{namespace, "smoke"} {
		f.whole(ctx, t, ns)
	}
	f.must(ctx, t, "", "rollout", "restart", "deployment/web", "-n", "smoke") // spread over all nodes again
	f.whole(ctx, t, "smoke")
	f.mesh(ctx, t)
	f.forgotten(ctx, t, strings.TrimSuffix(old, "0/24"))
}

// A pod is one that was not told to end.
type pod struct {
	namespace, name string
	address         netip.Addr // none before it has one
}

func (p pod) String() string { return fmt.Sprintf("%s/%s %s", p.namespace, p.name, p.address) }

func (f *faults) pods(ctx context.Context, args ...string) (out []pod, err error) {
	var list struct {
		Items []struct {
			Metadata struct{ Namespace, Name, DeletionTimestamp string }
			Status   struct{ PodIP netip.Addr }
		}
	}
	err = f.get(ctx, &list, append([]string{"pods"}, args...)...)
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			out = append(out, pod{p.Metadata.Namespace, p.Metadata.Name, p.Status.PodIP})
		}
	}
	return out, err
}

// renewed kills an agent and waits for the next one.
func (f *faults) renewed(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	old := f.processes(node, "node")
	f.signal(t, old, unix.SIGKILL)
	f.until(ctx, t, func(context.Context) (string, error) {
		if now := f.processes(node, "node"); len(now) == 0 || now[0] == old[0] {
			return "a new agent on " + node, nil
		}
		return "", nil
	})
}

// TestTwoAPIServers has Hythe know two API servers, of which the first is dead: from the start, and later while it is used.
func TestTwoAPIServers(t *testing.T) {
	s := newSmoke(t, cluster.Hythe, 2)
	s.TwoAPIServers = true
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	t.Cleanup(func() { s.downLeavesNothing(t) })
	if err := errors.Join(s.down(), s.up(ctx, true), s.kill(cluster.APIServerDaemon)); err != nil {
		t.Fatal(s.hint(err))
	}
	if err := s.install(ctx); err != nil {
		t.Fatal(s.hint(err))
	}
	f := s.prepare(ctx, t)
	if err := f.restart(ctx, cluster.APIServerDaemon); err != nil {
		t.Fatal(err)
	}
	f.must(ctx, t, "", "rollout", "restart", "-n", namespace, "daemonset/hythe-node", "daemonset/hythe-gateway", "deployment/hythe-controller")
	f.quiet(ctx, t)
	first := f.APIServers()[0].String()
	for _, n := range f.Nodes { // of all on a node, only the agent asks the first one
		if out, err := f.outputOn(n.Name, "ss", "-tnH", "state", "established", "dst", first); err != nil || out == "" {
			t.Fatalf("the agent of %s does not use %s: %v", n.Name, first, err)
		}
	}
	f.lossless(ctx, t, func() {
		if err := f.kill(cluster.APIServerDaemon); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		f.follows(ctx, t, "second")
		f.service(ctx, t, "second")
		f.must(ctx, t, "", "rollout", "restart", "deployment/web", "-n", "smoke") // other endpoints
		f.whole(ctx, t, "smoke")
		t.Logf("an Ingress, a Service and other endpoints are served %.1fs after the first API server was killed", time.Since(begun).Seconds())
		for _, n := range f.Nodes {
			f.renewed(ctx, t, n.Name)
			f.whole(ctx, t, namespace)
		}
		f.follows(ctx, t, "renewed")
		f.must(ctx, t, "", "delete", "service/second", "-n", "smoke")
	})
}
