package check

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/testenv"
)

// TestBeside puts what kube-proxy makes in its three modes into a network namespace, and reads it back.
func TestBeside(t *testing.T) {
	testenv.NetNS(t)
	vip := netip.MustParseAddr("203.0.113.10")
	reasons := func(proxy, vips bool) string {
		t.Helper()
		f, err := ReadBeside([]netip.Addr{vip})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, p := range Beside(f, "n1", proxy, vips) {
			if p.Object.Name != "n1" || !strings.Contains(p.Message, "kube-proxy") {
				t.Errorf("problem %s", p)
			}
			out = append(out, p.Reason)
			if strings.Contains(p.Message, vip.String()) {
				out = append(out, "vip")
			}
		}
		return strings.Join(out, " ")
	}
	do := func(line string) {
		t.Helper()
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	want := func(proxy, vips bool, text string) {
		t.Helper()
		if got := reasons(proxy, vips); got != text {
			t.Errorf("proxy %t, vips %t: %q, want %q", proxy, vips, got, text)
		}
	}
	want(true, true, "")
	do("nft add table ip filter; nft add chain ip filter KUBE-FIREWALL; nft add chain ip mangle KUBE-KUBELET-CANARY 2>/dev/null; true") // the kubelet's
	want(true, true, "")
	do("nft add table ip kube-proxy; nft add chain ip kube-proxy services")
	want(true, true, ReasonProxyBeside)
	want(false, true, "")
	do("nft delete table ip kube-proxy; nft add table ip nat; nft add chain ip nat KUBE-SERVICES")
	want(true, true, ReasonProxyBeside)
	do("nft delete table ip nat; ip link add kube-ipvs0 type bridge; ip address add 203.0.113.9/32 dev kube-ipvs0")
	want(true, true, ReasonProxyBeside+" "+ReasonNotStrict)
	want(false, true, ReasonNotStrict)
	want(false, false, "")
	do("ip address add 203.0.113.10/32 dev kube-ipvs0")
	want(false, true, ReasonNotStrict+" vip")
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0); err != nil { //nolint:gosec // a sysctl of the namespace
		t.Fatal(err)
	}
	want(false, true, "")
	want(true, true, ReasonProxyBeside)
}
