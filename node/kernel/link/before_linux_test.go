package link_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		if err := link.Restore(file); err == nil || !strings.Contains(err.Error(), "damaged") || sysctl(forward) != "1" {
			t.Errorf("a damaged file: error %v", err)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	write(all, "2") // another program's
	for range 2 {
		if err := link.Restore(file); err != nil {
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
