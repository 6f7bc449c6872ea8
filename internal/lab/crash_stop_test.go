package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/lab/topology"
)

// All processes end at the same moment, as in a power cut, and are started again: all is as it was.
func (c *crashes) powerCut(t *testing.T) {
	owner, beforeFiles, envoys := c.owner(t), files(t, c.lab), c.envoys(t)
	for _, v := range victims {
		if err := c.client.Kill(t.Context(), v, !strings.HasSuffix(v, "/envoy")); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now()
	time.Sleep(time.Duration(c.random.Int64N(int64(downLimit))))
	for _, v := range victims {
		if !strings.HasSuffix(v, "/envoy") {
			if err := c.client.Start(t.Context(), v); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.awaitEnvoys(t, victims, envoys)
	c.settle(t)
	c.answered(t, time.Now())
	_, lost := c.traffic.vip.since(at)
	c.note(t, "All processes killed at the same moment (VIP on %s): the VIP without an answer for %d ms, %d requests lost through it and none past Envoy; files written: %v.",
		owner, c.traffic.vip.outage(at, time.Now()).Milliseconds(), len(lost), written(beforeFiles, files(t, c.lab)))
	for _, s := range c.traffic.inside {
		if _, lost := s.since(at); len(lost) > 0 {
			t.Errorf("%s: %d lost%s", s.name, len(lost), first(lost))
		}
	}
	c.wantFirst(t)
}

// An agent that owns a VIP is stopped for long, as in a virtual machine that is paused. Another node takes the VIP, and
// the world changes. When the agent goes on, it does not take the VIP back, no two nodes answer for it for more than a
// moment, and it catches up.
func (c *crashes) stoppedAgent(t *testing.T) {
	old := c.owner(t)
	pid := process(c.settle(t), old+"/node").PID
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now()
	signal(syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	var owner string
	for deadline := time.Now().Add(settleLimit); ; {
		if owner = c.owner(t); owner != old {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody took the VIP from %s", old)
		}
	}
	moved := time.Since(at)
	// Pods of the stopped node cannot get new Services; those elsewhere come.
	c.scale(t, 0, 3)
	time.Sleep(5 * time.Second) // longer than every timer of the members and of ARP
	goesOn := time.Now()
	signal(syscall.SIGCONT)
	two := 0
	for time.Since(goesOn) < 3*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		is, err := c.failover.Owner(ctx)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded): // a busy machine: nobody's answer was heard
		case err != nil:
			two++
			t.Logf("%s after it goes on: %v", time.Since(goesOn), err)
		case is != owner:
			t.Errorf("%s answers %s after it goes on, the VIP is on %s", is, time.Since(goesOn), owner)
		}
	}
	if two > 1 {
		t.Errorf("two nodes answered for the VIP, or none, %d times", two)
	}
	c.awaitSoon(t, 3)
	c.scale(t, 3, 0)
	c.awaitSoon(t, 0)
	c.answered(t, time.Now())
	announced := map[string]int{}
	for _, mac := range c.traffic.arp.since(goesOn) {
		announced[mac]++
	}
	c.note(t, "The VIP's agent stopped (SIGSTOP) for %d s and then continued: the VIP moved after %d ms, no answer for %d ms; the old owner announced nothing and answered nothing when it went on.",
		int(goesOn.Sub(at).Seconds()), moved.Milliseconds(), c.traffic.vip.outage(at, time.Now()).Milliseconds())
	for _, n := range topology.Build("").Nodes {
		if n.Name == old && announced[n.MAC.String()] > 0 {
			t.Errorf("%s announced the VIP when it went on, %d times", old, announced[n.MAC.String()])
		}
	}
	for _, s := range c.traffic.inside {
		if _, lost := s.since(at); len(lost) > 0 {
			t.Errorf("%s: %d lost%s", s.name, len(lost), first(lost))
		}
	}
	c.wantFirst(t)
}

// An Envoy hangs while many changes go by: its gateway does not grow, the other Envoy has each change, nothing is lost,
// and when it goes on it has the last change at once.
func (c *crashes) stuckEnvoy(t *testing.T) {
	changes := 100
	if text := os.Getenv("CRASH_CHANGES"); text != "" {
		var err error
		if changes, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	stuck := map[string]string{"node1": "node2", "node2": "node1"}[c.owner(t)]
	pid := c.envoys(t)[stuck]
	if pid == 0 {
		t.Fatalf("%s has no Envoy", stuck)
	}
	memory := func() float64 {
		m, err := metric(t.Context(), c.lab, stuck+"/gateway", "go_memstats_heap_inuse_bytes")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	at := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	manifest := filepath.Join(c.lab.Manifests(), "changing.yaml")
	var before, after float64
	for i := range changes {
		if err := atomicfile.WriteUnsynced(manifest, fmt.Appendf(nil, changing, i), 0o644); err != nil {
			t.Fatal(err)
		}
		if i == changes/10 {
			before = memory()
		}
		time.Sleep(25 * time.Millisecond) // a change that is not seen alone is none
	}
	c.awaitPath(t, c.owner(t), changes-1)
	after = memory()
	if after > before+64<<20 {
		t.Errorf("the gateway of the stuck Envoy grew from %.1f to %.1f MB", before/1e6, after/1e6)
	}
	goesOn := time.Now()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.awaitPath(t, stuck, changes-1)
	c.note(t, "%d changes while an Envoy is stopped: heap of its gateway %.0f MB after a tenth of them, %.0f MB at the end; the other Envoy had all; %d ms to catch up.",
		changes, before/1e6, after/1e6, time.Since(goesOn).Milliseconds())
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	c.settle(t)
	c.wantAllAnswered(t, at)
	c.wantFirst(t)
}

const changing = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: changing, namespace: shop}
spec:
  ingressClassName: hythe
  rules:
    - host: changing.example.com
      http:
        paths:
          - path: /%d
            pathType: Exact
            backend: {service: {name: web, port: {number: 80}}}
`

// awaitPath waits until the Envoy of a node serves the path of a change, and that one only.
func (c *crashes) awaitPath(t *testing.T, node string, change int) {
	t.Helper()
	var address netip.Addr
	st, err := c.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Pods {
		if p.Owner == "envoy" && p.Node == node {
			address = netip.MustParseAddr(p.Address)
		}
	}
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return topology.Dial(ctx, c.lab.Namespace(node), "tcp", netip.AddrPortFrom(address, 8080).String())
		},
	}}
	last := ""
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(fmt.Sprintf("http://changing.example.com/%d", change))
		if err != nil {
			last = err.Error()
			continue
		}
		_ = resp.Body.Close()
		if last = resp.Status; resp.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatalf("Envoy of %s does not serve change %d: %s", node, change, last)
}
