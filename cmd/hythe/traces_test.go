package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/testenv"
)

// traces is all that a network namespace and a folder hold, a line for each thing, sorted.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	for _, command := range []string{
		"ip -d -o link", "ip -o addr", "ip route show table all", "ip -6 route show table all", "ip rule", "ip -6 rule", "ip neigh show nud permanent", "ip -6 neigh show nud permanent",
		"bridge fdb", "nft list ruleset", "ip tunnel", "ip xfrm policy",
	} {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		for line := range strings.Lines(string(out)) {
			lines = append(lines, command+": "+strings.TrimSpace(line))
		}
	}
	for _, root := range []string{"/proc/sys/net", dir} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				lines = append(lines, path)
				return nil
			}
			data, _ := os.ReadFile(path) // some cannot be read
			lines = append(lines, fmt.Sprintf("%s: %q", path, data))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(lines)
	return lines
}

// TestCleanupLeavesNoTrace runs an agent on a node of a cluster with a Service, ends it, cleans up, and compares all that
// the kernel and the folders hold with what was there before.
func TestCleanupLeavesNoTrace(t *testing.T) {
	testenv.Root(t)
	testenv.NetNS(t)
	dir := t.TempDir()
	sub := func(name string) string { return filepath.Join(dir, name) }
	for _, command := range []string{
		"ip link set lo up", "ip link add eth0 address 02:00:00:00:00:11 type veth peer name wire", "ip link set eth0 up", "ip link set wire up",
		"ip addr add 192.0.2.11/24 dev eth0", "ip route add default via 192.0.2.1",
		"sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.send_redirects=1 net.ipv4.conf.default.send_redirects=1 net.ipv4.conf.eth0.send_redirects=1",
		"nft add table inet theirs", "nft add chain inet theirs c",
	} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	work := t.TempDir()
	manifests := `{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24]}, status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDRs: [10.244.2.0/24]}, status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
`
	for name, data := range map[string]string{"manifests/all.yaml": manifests, "plugin": "binary", "key": strings.Repeat("k", 32)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(work, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"conf", "bin"} {
		if err := os.Mkdir(sub(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tentative := func(line string) bool { return strings.Contains(line, " tentative") }
	settle := func() []string { // addresses are tentative for some seconds
		var last []string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Second) {
			now := traces(t, dir)
			if slices.Equal(now, last) && !slices.ContainsFunc(now, tentative) {
				break
			}
			last = now
		}
		return last
	}
	before := settle()

	agent := exec.Command(os.Args[0], "-test.run=^TestAgentOfTraces$")
	agent.Env = append(os.Environ(), "HYTHE_TRACES_DIR="+dir, "HYTHE_TRACES_WORK="+work)
	var log bytes.Buffer
	agent.Stdout, agent.Stderr = &log, &log
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	installed := false
	for deadline := time.Now().Add(30 * time.Second); !installed && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(sub("conf/10-hythe.conflist"))
		installed = err == nil
	}
	during := traces(t, dir)
	_ = agent.Process.Signal(os.Interrupt)
	if err := agent.Wait(); err != nil || !installed {
		t.Fatalf("the agent: installed %t, %v\n%s", installed, err, log.String())
	}
	if all := strings.Join(during, "\n"); !strings.Contains(all, "hythe.vxlan") || !strings.Contains(all, "table inet hythe") || !strings.Contains(all, `/ip_forward: "1\n"`) {
		t.Fatalf("the agent did nothing:\n%s", log.String())
	}

	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"node", "cleanup", "--purge", "--data", sub("data"), "--run", sub("run"), "--cni-conf-dir", sub("conf"), "--cni-bin-dir", sub("bin"), "--admin", "unix:" + sub("admin.sock")})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	after := settle()
	// The kernel counts, and loads modules that bring sysctls of their own.
	changes := func(a, b []string) (only []string) {
		for _, line := range a {
			if _, found := slices.BinarySearch(b, line); !found && !strings.HasPrefix(line, "/proc/sys/net/netfilter/") && !strings.HasPrefix(line, "/proc/sys/net/nf_conntrack_max") {
				only = append(only, line)
			}
		}
		return only
	}
	if left := changes(after, before); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	if gone := changes(before, after); len(gone) > 0 {
		t.Errorf("gone, and not Hythe's:\n%s", strings.Join(gone, "\n"))
	}
}

// TestAgentOfTraces is the agent of TestCleanupLeavesNoTrace, in a process of its own: its threads must be in the
// namespace.
func TestAgentOfTraces(t *testing.T) {
	dir, work := os.Getenv("HYTHE_TRACES_DIR"), os.Getenv("HYTHE_TRACES_WORK")
	if dir == "" {
		return
	}
	n := node{nodeOptions: nodeOptions{
		name: "n1", dataDir: dir + "/data", runDir: dir + "/run", cniConfDir: dir + "/conf", cniBinDir: dir + "/bin", cniPlugin: work + "/plugin", heartbeatKey: work + "/key",
	}}
	n.manifests, n.state, n.admin, n.level = work+"/manifests", work+"/state", "unix:"+dir+"/admin.sock", slog.LevelInfo
	if err := n.start("node"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()
	if err := n.run(ctx); err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
}
