package link_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/link"
)

// TestRestore changes sysctls twice, as two starts of an agent do, and puts back what was there at first, but for one that
// somebody else changed. A damaged file is named and changes nothing.
func TestRestore(t *testing.T) {
	testenv.Root(t)
	links := node(t)
	file := filepath.Join(t.TempDir(), "sysctls.json")
	sysctl := func(name string) string {
		t.Helper()
		data, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	write := func(name, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil { //nolint:gosec // a sysctl of the namespace
			t.Fatal(err)
		}
	}
	const forward, redirects, all = "net/ipv4/ip_forward", "net/ipv4/conf/eth0/send_redirects", "net/ipv4/conf/all/send_redirects"
	write(forward, "0")
	write(redirects, "1")
	write(all, "1")
	links.Remember(file)
	for range 2 {
		if err := links.Set(t.Context(), states()["IPv4 only"]); err != nil {
			t.Fatal(err)
		}
		write(redirects, "1") // somebody is in the way; the agent puts it right
	}
	if err := links.Set(t.Context(), states()["IPv4 only"]); err != nil {
		t.Fatal(err)
	}
	if sysctl(forward) != "1" || sysctl(redirects) != "0" || sysctl(all) != "0" {
		t.Fatal("nothing was set")
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"", "{"} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := link.Restore(file, false); err == nil || !strings.Contains(err.Error(), "damaged") || sysctl(forward) != "1" {
			t.Errorf("a damaged file: error %v", err)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	write(all, "2") // another program's
	for range 2 {
		if err := link.Restore(file, false); err != nil {
			t.Fatal(err)
		}
	}
	if sysctl(forward) != "0" || sysctl(redirects) != "1" || sysctl(all) != "2" {
		t.Errorf("%s %s, %s %s, %s %s", forward, sysctl(forward), redirects, sysctl(redirects), all, sysctl(all))
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is left")
	}
}

// TestRestoreForOthers leaves forwarding on for a container engine that came to rely on it, and nothing else.
func TestRestoreForOthers(t *testing.T) {
	testenv.Root(t)
	links := node(t)
	file := filepath.Join(t.TempDir(), "sysctls.json")
	const forward, redirects = "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/send_redirects"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(forward, []byte("0"), 0o644))
	must(os.WriteFile(redirects, []byte("1"), 0o644))
	links.Remember(file)
	must(links.Set(t.Context(), states()["IPv4 only"]))
	foreign, err := netlink.LinkByName("foreign")
	must(err)
	must(netlink.LinkDel(foreign))
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "docker0"}}
	must(netlink.LinkAdd(bridge))
	if others, err := link.Forwarders(); err != nil || len(others) > 0 {
		t.Errorf("with Hythe's links, and a bridge that is down: %q, error %v", others, err)
	}
	must(netlink.LinkSetUp(bridge))
	others, err := link.Forwarders()
	if err != nil || !slices.Equal(others, []string{"docker0"}) {
		t.Errorf("others are %q, error %v", others, err)
	}
	must(link.Restore(file, len(others) > 0))
	for path, want := range map[string]string{forward: "1", redirects: "1"} {
		if data, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(data)) != want {
			t.Errorf("%s is %q, error %v, want %s", path, data, err, want)
		}
	}
}
