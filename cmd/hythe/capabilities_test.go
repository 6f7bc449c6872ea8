package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/testenv"
)

// TestNodeCapabilities runs the agent as the chart does: root with NET_ADMIN and NET_RAW alone, and /proc/sys read-only
// but for a mount of the host's.
func TestNodeCapabilities(t *testing.T) {
	testenv.Root(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "hythe")
	build := exec.Command("go", "build", "-o", dir+"/", ".", "../hythe-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, content := range map[string]string{
		"key": strings.Repeat("k", 32),
		"manifests/node.yaml": "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.9.0.0/24]}, " +
			"status: {addresses: [{type: InternalIP, address: 10.77.0.1}]}}",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const sysctl = "/proc/sys/net/ipv4/ip_forward"
	ns := testenv.NewNetNS(t)
	socket := filepath.Join(dir, "admin")
	script := `set -e
mkdir -p /host/proc/sys/net
mount --bind /proc/sys/net /host/proc/sys/net
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec setpriv --bounding-set -all,+net_admin,+net_raw --inh-caps -all --no-new-privs "$@"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", binary, "node", "--node", "n1",
		"--manifests", filepath.Join(dir, "manifests"), "--state", filepath.Join(dir, "state"), "--heartbeat-key", filepath.Join(dir, "key"),
		"--data", filepath.Join(dir, "data"), "--run", filepath.Join(dir, "run"), "--admin", "unix:"+socket,
		"--cni-conf-dir", filepath.Join(dir, "conf"), "--cni-bin-dir", filepath.Join(dir, "bin"))
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if _, err := os.Stat("/host"); err != nil {
		t.Cleanup(func() { _ = exec.Command("rmdir", "-p", "/host/proc/sys/net").Run() })
	}
	testenv.InNetNS(t, ns, func() {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: "eth0"})
		veth.PeerName = "peer0"
		for _, err := range []error{
			os.WriteFile(sysctl, []byte("0"), 0o644), netlink.LinkAdd(veth),
			netlink.AddrAdd(veth, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 77, 0, 1), Mask: net.CIDRMask(24, 32)}}),
			netlink.LinkSetUp(veth), cmd.Start(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	ready := func() error {
		r, err := client.Get("http://node/readyz")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", r.Status)
		}
		return nil
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ready()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			err2 := <-ended
			ended <- err2
			t.Fatalf("not ready in 30 s: %v\n%s", err, log.String())
		}
	}
	testenv.InNetNS(t, ns, func() {
		if value, err := os.ReadFile(sysctl); err != nil || strings.TrimSpace(string(value)) != "1" {
			t.Errorf("%s is %q, error %v", sysctl, value, err)
		}
	})
}
