package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/internal/lab/topology"
)

// longLived renews the agents under connections that stay: those that own none of the VIPs die, and all are upgraded.
func (f *faults) longLived(ctx context.Context, t *testing.T) {
	f.must(ctx, t, ingressText("long", "smoke", "web"), "apply", "-f", "-")
	defer func() { f.must(ctx, t, "", "delete", "ingress/long", "-n", "smoke") }()
	f.eventually(ctx, t, func(ctx context.Context) error { return f.askHost(ctx, "long") })
	node, _ := f.Node(f.other(t))
	port := f.jsonPath(ctx, t, "service/by-port", "{.spec.ports[0].nodePort}")
	urls := map[string]string{}
	for _, address := range []string{f.byAddress + ":80", node.Address.String() + ":" + port} {
		urls[address] = "http://" + address + "/hostname"
	}
	urls[f.vip+":80"] = "http://long.example.com/hostname"
	f.staying(ctx, t, "the agent is killed", urls, func() {
		f.renewed(ctx, t, node.Name)
		f.whole(ctx, t, namespace)
	})
	f.staying(ctx, t, "the agents are upgraded", urls, func() {
		f.must(ctx, t, "", "rollout", "restart", "daemonset/hythe-node", "-n", namespace)
		f.whole(ctx, t, namespace)
	})
}

// envoyUpgraded replaces all Envoys: each has drained, and its VIP gone, before it ends.
func (f *faults) envoyUpgraded(ctx context.Context, t *testing.T) {
	f.lossless(ctx, t, func() {
		f.must(ctx, t, "", "rollout", "restart", "daemonset/hythe-envoy", "-n", namespace)
		f.must(ctx, t, "", "rollout", "status", "daemonset/hythe-envoy", "-n", namespace, "--timeout", "4m")
		f.whole(ctx, t, namespace)
	})
}

// staying does something under connections that stay, and under others.
func (f *faults) staying(ctx context.Context, t *testing.T, what string, urls map[string]string, do func()) {
	t.Helper()
	asking, stop := context.WithCancel(ctx)
	defer stop()
	ends := map[string]chan error{}
	for address, url := range urls {
		end := make(chan error, 1)
		ends[address] = end
		go func() { end <- f.stay(asking, address, url) }()
	}
	f.lossless(ctx, t, do)
	stop()
	for address, end := range ends {
		if err := <-end; err != nil {
			t.Errorf("while %s: the connection to %s: %v", what, address, err)
		}
	}
}

// stay asks by one connection until ctx ends, and wants it to be the first one.
func (f *faults) stay(ctx context.Context, address, url string) error {
	var dials atomic.Int64
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxConnsPerHost: 1,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			dials.Add(1)
			return topology.Dial(ctx, cluster.Namespace(cluster.Client), network, address)
		},
	}}
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		buf := make([]byte, 1000)
		for err == nil {
			_, err = resp.Body.Read(buf)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := dials.Load(); n != 1 {
		return fmt.Errorf("%d connections instead of one", n)
	}
	return nil
}

// nodeComesAndGoes adds a node, gives it work, drains it and takes it away.
func (f *faults) nodeComesAndGoes(ctx context.Context, t *testing.T) {
	f.lossless(ctx, t, func() {
		n, ok := f.NextNode()
		if !ok {
			t.Fatal("the cluster has no room for a node")
		}
		f.joinWithoutCIDR(ctx, t, n)
		if err := f.waitReady(ctx); err != nil {
			t.Fatal(err)
		}
		// As many as also come to the new node where the three that there are share one: maxSkew is 1.
		f.must(ctx, t, "", "scale", "deployment/web", "-n", "smoke", "--replicas=6")
		f.whole(ctx, t, "smoke")
		if pods := f.must(ctx, t, "", "get", "pods", "-n", "smoke", "--field-selector", "spec.nodeName="+n.Name, "-o", "name"); !strings.Contains(pods, "web-") {
			t.Errorf("no server on the new node: %q", pods)
		}
		f.askNodePort(ctx, t, n)
		if conditions := f.must(ctx, t, "", "get", "node", n.Name, "-o", "jsonpath={.status.conditions[?(@.type=='NetworkUnavailable')].status}"); conditions != "False" {
			t.Errorf("NetworkUnavailable of the new node is %q", conditions)
		}
		f.must(ctx, t, "", "scale", "deployment/web", "-n", "smoke", "--replicas=3")
		f.must(ctx, t, "", "drain", n.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
		if err := f.removeNode(ctx, n.Name); err != nil {
			t.Fatal(err)
		}
		f.follows(ctx, t, "removed")
	})
	// What others knew of the node is gone.
	for _, n := range f.Nodes {
		if err := f.runOn(n.Name, "sh", "-ec", "! bridge fdb show | grep -q 203.0.113.104"); err != nil {
			t.Errorf("the removed node is still a peer: %v", err)
		}
	}
}

// nodeRebooted cuts the power of the node that announces the gateway's VIP: another takes over, and connections to what is left work.
func (f *faults) nodeRebooted(ctx context.Context, t *testing.T) {
	before := f.owner(t, f.vip)
	n, _ := f.Node(before)
	boot := f.bootID(ctx, t, before)
	lost := f.underTraffic(ctx, t, func() {
		if err := f.kill(before); err != nil {
			t.Fatal(err)
		}
		f.eventually(ctx, t, f.askIngress)
		if now := f.owner(t, f.vip); now == before {
			t.Errorf("the VIP is still on %s, which is off", before)
		}
		if err := f.reboot(ctx, n); err != nil {
			t.Fatal(err)
		}
		f.back(ctx, t, n, boot)
	})
	for _, err := range lost {
		t.Logf("while %s was off: %v", before, err)
	}
}

// bootID is what the kubelet tells.
func (f *faults) bootID(ctx context.Context, t *testing.T, node string) string {
	t.Helper()
	return f.must(ctx, t, "", "get", "node", node, "-o", "jsonpath={.status.nodeInfo.bootID}")
}

// back waits until a node works in another boot than before: pods and Reports of the API server may still be those of before.
func (f *faults) back(ctx context.Context, t *testing.T, n cluster.Node, before string) {
	t.Helper()
	f.until(ctx, t, func(ctx context.Context) (string, error) {
		out, err := f.kubectl(ctx, "", "get", "report", "node-"+n.Name, "-o", "jsonpath={.bootID} {.network}")
		if boot, network, _ := strings.Cut(string(out), " "); err == nil && (boot == before || boot != f.bootID(ctx, t, n.Name) || network != "true") {
			return "the Report of " + n.Name + " in another boot than " + before + ": " + string(out), nil
		}
		return "", err
	})
	f.whole(ctx, t, namespace)
	f.askNodePort(ctx, t, n)
}

func (f *faults) allRebooted(ctx context.Context, t *testing.T) {
	begun := time.Now()
	boots := map[string]string{}
	for _, n := range f.Nodes {
		boots[n.Name] = f.bootID(ctx, t, n.Name)
	}
	if err := f.reboot(ctx, f.Nodes...); err != nil {
		t.Fatal(err)
	}
	f.quiet(ctx, t)
	t.Logf("all is served %.1fs after the power was cut", time.Since(begun).Seconds())
	for _, n := range f.Nodes {
		f.back(ctx, t, n, boots[n.Name])
	}
	f.follows(ctx, t, "booted")
}
