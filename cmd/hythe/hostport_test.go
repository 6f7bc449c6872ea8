package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/health"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/proxy"
)

// TestHostPorts gives and takes a host port as the plugin does, by its leases, and finds it in the kernel, by and by and
// after a restart of the agent, whose first Set changes nothing. Leases that cannot be read change nothing either.
func TestHostPorts(t *testing.T) {
	testenv.NetNS(t)
	lo, err := netlink.LinkByName("lo")
	if err := errors.Join(err, netlink.LinkSetUp(lo)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := hostPortNode(t, dir)
	leases := cni.LeasesFile(n.dataDir)
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(leases), 0o700), atomicfile.Write(leases, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	const with = `{"bootID":"one","leases":[{"containerID":"c","ifName":"eth0","addresses":["10.244.1.2"],"pod":"default/web",
		"hostPorts":[{"protocol":"tcp","hostPort":8080,"containerPort":80}]}]}`
	s := &model.Snapshot{Nodes: map[string]*model.Node{"n1": {Name: "n1"}}}
	problems, err := n.setProxy(t.Context(), s)
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	n.last.Store(s)
	woken := make(chan struct{}, 1)
	n.wakeProxy = func() { run.Wake(woken) }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.watchHostPorts(ctx) })
	defer wg.Wait()
	defer cancel()
	follow := func(want int) {
		t.Helper()
		select {
		case <-woken:
		case <-time.After(2 * repairEvery):
			t.Fatal("nobody heard of the change")
		}
		if _, err := n.setProxy(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		wantHostPorts(t, want)
	}
	write(with)
	follow(2) // the node's addresses, and 127.0.0.1
	write(`{"bootID":"one","leases":[]}`)
	follow(0)
	write(with)
	follow(2)

	write("{")
	problems, err = n.setProxy(t.Context(), s)
	if err != nil || len(problems) != 1 || problems[0].Reason != "HostPortsNotRead" {
		t.Errorf("leases that cannot be read: %v, %v", problems, err)
	}
	wantHostPorts(t, 2)

	write(with)
	again := hostPortNode(t, dir)
	if _, err := again.setProxy(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	wantHostPorts(t, 2)
}

func hostPortNode(t *testing.T, dir string) *node {
	t.Helper()
	boot := filepath.Join(dir, "boot_id")
	if err := os.WriteFile(boot, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &node{
		nodeOptions: nodeOptions{name: "n1", dataDir: filepath.Join(dir, "data"), cniConfDir: "x", bootID: boot},
		texts:       map[string]func() string{},
	}
	n.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	n.health = health.NewServer(n.log, "")
	if n.table, err = nft.New(n.log, nil, nft.WithoutOwner()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.table.Close() })
	if n.flows, err = conntrack.New(n.log, nil); err != nil {
		t.Fatal(err)
	}
	if n.links, err = link.New(n.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.links.Close)
	return n
}

func wantHostPorts(t *testing.T, want int) {
	t.Helper()
	got, err := readback.Frontends()
	if err != nil || len(got) != want {
		t.Fatalf("frontends %v, %v; want %d", got, err, want)
	}
	to := netip.MustParseAddrPort("10.244.1.2:80")
	for f, b := range got {
		if f.Protocol != proxy.TCP || f.Port != 8080 || fmt.Sprint(b.Inside) != fmt.Sprint([]netip.AddrPort{to}) {
			t.Errorf("frontend %v: %v", f, b)
		}
	}
}
