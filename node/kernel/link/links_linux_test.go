package link_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/overlay"
)

// node makes the test's thread that of a node: eth0 with two addresses, and something of somebody else.
func node(t *testing.T) *link.Links {
	t.Helper()
	testenv.NetNS(t)
	for _, command := range []string{
		"ip link set lo up",
		"ip link add eth0 mtu 1500 type veth peer name far",
		"ip addr add 192.0.2.11/24 dev eth0",
		"ip addr add 2001:db8::11/64 dev eth0 nodad",
		"ip link set far up",
		"ip link set eth0 up",
		"ip route add 198.51.100.0/24 via 192.0.2.254 proto 200",
		"ip link add foreign type vxlan id 1 dstport 8472",
		"ip link set foreign up",
		"ip neigh add 192.0.2.12 lladdr 02:00:00:00:00:12 dev eth0",
	} {
		run(t, command)
	}
	links, err := link.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)
	return links
}

func run(t *testing.T, command string) string {
	t.Helper()
	words := strings.Fields(command)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// kernel is what ip and bridge say of the namespace, without what differs between two that are alike.
func kernel(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, command := range []string{
		"ip -4 -br addr show dev eth0",
		"ip route show table main", "ip -6 route show table main",
		"ip neigh show nud permanent", "ip -6 neigh show nud permanent",
	} {
		lines := strings.Split(run(t, command), "\n")
		// The kernel adds its own routes when it finds a link ready, which takes its time.
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "proto kernel") })
		slices.Sort(lines)
		fmt.Fprintf(&b, "# %s%s\n", command, strings.Join(lines, "\n"))
	}
	if _, err := os.Stat("/proc/sys/net/ipv4/conf/" + link.OverlayName); err == nil {
		b.WriteString(run(t, "ip -br addr show dev "+link.OverlayName))
		lines := strings.Split(run(t, "bridge fdb show dev "+link.OverlayName), "\n")
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, "\n"))
		details := run(t, "ip -d -o link show dev "+link.OverlayName)
		_, details, _ = strings.Cut(details, ": ") // the index
		b.WriteString(details)
	}
	return b.String()
}

// states are overlays of node a as its cluster and settings change.
func states() map[string]link.State {
	build := func(settings overlay.Settings, change func(map[string]*model.Node)) link.State {
		s := &model.Snapshot{Nodes: map[string]*model.Node{}}
		for i, name := range []string{"a", "b", "c"} {
			s.Nodes[name] = &model.Node{Name: name,
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", 11+i))},
				PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(1 + i), 0}), 24), netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", 1+i))}}
		}
		change(s.Nodes)
		state, _ := overlay.Build(s, "a", settings)
		return state
	}
	same := func(map[string]*model.Node) {}
	return map[string]link.State{
		"three nodes":    build(overlay.Settings{}, same),
		"off":            build(overlay.Settings{Mode: overlay.None}, same),
		"other VNI":      build(overlay.Settings{VNI: 73}, same),
		"other port":     build(overlay.Settings{Port: 4790}, same),
		"smaller MTU":    build(overlay.Settings{MTU: 1400}, same),
		"alone":          build(overlay.Settings{}, func(n map[string]*model.Node) { delete(n, "b"); delete(n, "c") }),
		"moved node":     build(overlay.Settings{}, func(n map[string]*model.Node) { n["b"].Addresses[0] = netip.MustParseAddr("192.0.2.99") }),
		"renamed node":   build(overlay.Settings{}, func(n map[string]*model.Node) { n["d"] = n["b"]; delete(n, "b") }),
		"swapped ranges": build(overlay.Settings{}, func(n map[string]*model.Node) { n["b"].PodCIDRs, n["c"].PodCIDRs = n["c"].PodCIDRs, n["b"].PodCIDRs }),
		"own range":      build(overlay.Settings{}, func(n map[string]*model.Node) { n["a"].PodCIDRs[0] = netip.MustParsePrefix("10.244.77.0/24") }),
		"swapped own":    build(overlay.Settings{}, func(n map[string]*model.Node) { n["a"].PodCIDRs, n["c"].PodCIDRs = n["c"].PodCIDRs, n["a"].PodCIDRs }),
		"IPv4 only":      build(overlay.Settings{}, func(n map[string]*model.Node) { n["a"].PodCIDRs = n["a"].PodCIDRs[:1] }),
		"IPv6 underlay": build(overlay.Settings{}, func(n map[string]*model.Node) {
			for _, e := range n {
				e.Addresses = e.Addresses[1:]
			}
		}),
	}
}

// TestAnyToAny goes through all states in random order, and finds each as in a namespace that never had another.
func TestAnyToAny(t *testing.T) {
	testenv.Root(t)
	all := states()
	var names []string
	want := map[string]string{}
	for name, state := range all {
		names = append(names, name)
		t.Run("fresh "+name, func(t *testing.T) {
			links := node(t)
			if err := links.Set(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			want[name] = kernel(t)
		})
	}
	slices.Sort(names)
	links := node(t)
	random := rand.New(rand.NewPCG(3, 4))
	last := "nothing"
	for range 60 {
		name := names[random.IntN(len(names))]
		if err := links.Set(t.Context(), all[name]); err != nil {
			t.Fatalf("from %q to %q: %v", last, name, err)
		}
		if got := kernel(t); got != want[name] {
			t.Fatalf("from %q to %q:\ngot:\n%s\nwant:\n%s", last, name, got, want[name])
		}
		before := links.Writes()
		if err := links.Set(t.Context(), all[name]); err != nil || links.Writes() != before {
			t.Fatalf("%q again: %d writes, error %v", name, links.Writes()-before, err)
		}
		last = name
	}
}

// TestKeep says that an unknown State changes nothing.
func TestKeep(t *testing.T) {
	links := node(t)
	if err := links.Set(t.Context(), states()["three nodes"]); err != nil {
		t.Fatal(err)
	}
	before := kernel(t)
	if err := links.Set(t.Context(), link.State{Keep: true}); err != nil || kernel(t) != before {
		t.Errorf("error %v, and the kernel has:\n%s\nbefore:\n%s", err, kernel(t), before)
	}
}

// TestForeignInTheWay says that what is not ours stays, is named in the error, and stops nothing else.
func TestForeignInTheWay(t *testing.T) {
	links := node(t)
	run(t, "ip route add 10.244.2.0/24 via 192.0.2.254 proto 200")
	err := links.Set(t.Context(), states()["three nodes"])
	if err == nil || !strings.Contains(err.Error(), "10.244.2.0/24") || links.Failed() != err.Error() {
		t.Errorf("error %v, want one about 10.244.2.0/24; it remembers %q", err, links.Failed())
	}
	if before := links.Writes(); links.Set(t.Context(), states()["three nodes"]) == nil || links.Writes() != before {
		t.Error("a refused change counts as one")
	}
	if out := run(t, "ip route show 10.244.2.0/24"); !strings.Contains(out, "proto 200") {
		t.Errorf("the foreign route is now %q", out)
	}
	if out := run(t, "ip route show 10.244.3.0/24"); !strings.Contains(out, link.OverlayName) {
		t.Errorf("the route after it is %q", out)
	}
	run(t, "ip route del 10.244.2.0/24")
	if err := links.Set(t.Context(), states()["three nodes"]); err != nil || links.Failed() != "" {
		t.Error(err, links.Failed())
	}
}

// TestForeignLink says that a link of another kind by our name is left alone.
func TestForeignLink(t *testing.T) {
	links := node(t)
	run(t, "ip link add "+link.OverlayName+" type bridge")
	if err := links.Set(t.Context(), states()["three nodes"]); err == nil || !strings.Contains(err.Error(), "foreign") {
		t.Errorf("error %v, want one about a foreign link", err)
	}
	if err := links.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if out := run(t, "ip -d link show "+link.OverlayName); !strings.Contains(out, "bridge") {
		t.Errorf("the foreign link is now %s", out)
	}
}

// TestUnderlay follows the underlay's MTU, and lives through its absence.
func TestUnderlay(t *testing.T) {
	links := node(t)
	state := states()["three nodes"]
	mtu := func() string { return strings.Fields(run(t, "ip -o link show "+link.OverlayName))[4] }
	for _, test := range []struct {
		command, want string
		fails         bool
	}{
		{"true", "1450", false},
		{"ip link set eth0 mtu 9000", "8950", false},
		{"ip addr del 192.0.2.11/24 dev eth0", "8950", true},
		{"ip link set eth0 mtu 1500", "8950", true},
		{"ip addr add 192.0.2.11/24 dev eth0", "1450", false},
	} {
		run(t, test.command)
		if err := links.Set(t.Context(), state); (err != nil) != test.fails {
			t.Errorf("after %s: error %v", test.command, err)
		}
		if got := mtu(); got != test.want {
			t.Errorf("after %s: mtu %s, want %s", test.command, got, test.want)
		}
	}
	u, err := link.FindUnderlay(netip.MustParseAddr("192.0.2.11"))
	if err != nil || u.Name != "eth0" || u.MTU != 1500 || u.MAC == (link.MAC{}) {
		t.Errorf("FindUnderlay: %+v, %v", u, err)
	}
}

// TestSysctls reads them back.
func TestSysctls(t *testing.T) {
	links := node(t)
	for name, value := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/conf/eth0/send_redirects": "1", "net/ipv6/conf/eth0/accept_ra": "1"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := links.Set(t.Context(), states()["three nodes"]); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"net/ipv4/ip_forward":                      "1",
		"net/ipv4/conf/all/send_redirects":         "0",
		"net/ipv4/conf/eth0/send_redirects":        "0",
		"net/ipv4/conf/hythe.vxlan/send_redirects": "0",
		"net/ipv4/conf/hythe.vxlan/rp_filter":      "2",
		"net/ipv6/conf/all/forwarding":             "1",
		"net/ipv6/conf/eth0/accept_ra":             "2",
	} {
		got, err := os.ReadFile("/proc/sys/" + name)
		if err != nil || string(bytes.TrimSpace(got)) != want {
			t.Errorf("%s is %q, error %v; want %s", name, got, err, want)
		}
	}
}

// TestManyNodes sets an overlay of 3,000 nodes, and prints how long the first and the second time take.
func TestManyNodes(t *testing.T) {
	links := node(t)
	s := &model.Snapshot{Nodes: map[string]*model.Node{}}
	for i := range 3000 {
		name := fmt.Sprintf("n%d", i)
		s.Nodes[name] = &model.Node{Name: name,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(2 + i>>8), byte(i)})},
			PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}}
	}
	s.Nodes["n11"].Addresses[0] = netip.MustParseAddr("192.0.2.11")
	state, problems := overlay.Build(s, "n11", overlay.Settings{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, what := range []string{"first", "second"} {
		start, before := time.Now(), links.Writes()
		if err := links.Set(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s Set: %d writes, %v", what, links.Writes()-before, time.Since(start).Round(time.Millisecond))
	}
	if n := strings.Count(run(t, "ip route show proto 72"), "\n"); n != 3000 {
		t.Errorf("%d routes, want 3000", n)
	}
}
