package nft

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// TestRefusedElementIsNamed: the Problem names the Service, the others are served, and it goes when its cause does.
func TestRefusedElementIsNamed(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	s := services(40)
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.7"), Protocol: proxy.TCP, Port: 80}
	bad := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:80")} // no endpoint of an IPv4 frontend
	s.Frontends[f] = proxy.Backends{Outside: bad, Inside: bad}
	s.Owners = map[proxy.Frontend]model.Key{f: {Namespace: "shop", Name: "web"}}
	if table.Set(t.Context(), s) == nil {
		t.Error("Set says nothing")
	}
	got := table.Problems("node-1")
	if len(got) != 1 || got[0].Object != model.Ref("Service", model.Key{Namespace: "shop", Name: "web"}) ||
		got[0].Reason != "RefusedByKernel" || !strings.Contains(got[0].Message, "endpoints4 10.96.0.7 . 6 . 80") {
		t.Errorf("Problems: %v", got)
	}
	for i := range 40 {
		found, err := readback.Lookup(readback.Query{From: netip.MustParseAddr("192.0.2.1"), To: netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), Protocol: proxy.TCP, Port: 80})
		if err != nil || i != 7 && len(found.Endpoints) != 3 {
			t.Errorf("Service %d: %+v, %v", i, found, err)
		}
	}
	set1(t, table, services(40))
	if got := table.Problems("node-1"); len(got) != 0 {
		t.Errorf("Problems of a table that is whole: %v", got)
	}
}

// TestEdits has others change rules in ways that a listing hardly shows.
func TestEdits(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	table := testTable(t, WithoutOwner())
	set1(t, table, services(20))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- table.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	handle := func(chain, rule string) string {
		out, err := exec.Command("nft", "-a", "list", "chain", "inet", "hythe", chain).CombinedOutput()
		found := regexp.MustCompile(rule + ".*# handle ([0-9]+)").FindStringSubmatch(string(out))
		if err != nil || found == nil {
			t.Fatalf("%v: %s", err, out)
		}
		return found[1]
	}
	for name, harm := range map[string]func() string{
		"same comment": func() string {
			return "replace rule inet hythe refuse handle " + handle("refuse", "tcp reset") + ` accept comment "refuse"`
		},
		"a pick": func() string {
			return "replace rule inet hythe pick4-3 handle " + handle("pick4-3", "one of") + ` drop comment "one of 3"`
		},
		"policy":       func() string { return "add chain inet hythe filter-forward { policy drop; }" },
		"one endpoint": func() string { return "delete element inet hythe endpoints4 { 10.96.0.7 . tcp . 80 . 1 }" },
		"a lead":       func() string { return "delete element inet hythe picks4 { 0x3 . 0x0 }" },
		"a chain with what leads there": func() string {
			return "delete element inet hythe picks4 { 0x3 . 0x0 } ; delete chain inet hythe pick4-3"
		},
		"the source": func() string { return "add element inet hythe restricted4 { 10.96.0.7 . tcp . 80 }" },
	} {
		before := value(table.metrics.repairs)
		start := time.Now()
		if err := nftTool(t, strings.Fields(strings.ReplaceAll(harm(), `"`, "'"))...); err != nil {
			// The command line takes words; a comment needs its quotes.
			if err := nftTool(t, harm()); err != nil {
				t.Fatal(err)
			}
		}
		for {
			out, _ := exec.Command("nft", "list", "table", "inet", "hythe").CombinedOutput()
			s, err := readback.Table()
			wrong := strings.Contains(string(out), `accept comment "refuse"`) || strings.Contains(string(out), `drop comment "one of 3"`) ||
				strings.Contains(string(out), "policy drop") || !strings.Contains(string(out), "10.96.0.7 . tcp . 80 . 0x00000001") ||
				!strings.Contains(string(out), "0x00000003 . 0x00000000 : goto pick4-3") ||
				s.Elements["restricted4"] != 0 || !strings.Contains(string(out), "chain pick4-3 {")
			if err == nil && !wrong && s.Whole && value(table.metrics.repairs) > before {
				break
			}
			if time.Since(start) > 10*time.Second {
				t.Fatalf("%s: not repaired", name)
			}
		}
		t.Logf("%s: repaired after %v", name, time.Since(start))
	}
}

// TestBesideOthers: rules of other tools stay, kube-proxy's too.
func TestBesideOthers(t *testing.T) {
	needNft(t)
	testenv.NetNS(t)
	table := testTable(t)
	firewall := "table inet firewall { chain input { type filter hook input priority 0; tcp dport 22 accept; }; }"
	if err := nftTool(t, firewall); err != nil {
		t.Fatal(err)
	}
	set1(t, table, services(5))
	for _, rules := range []string{
		"table ip kube-proxy { chain services { }; }", "table ip6 kube-proxy { chain services { }; }",
		"table ip nat { chain KUBE-SERVICES { }; }",
	} {
		if err := nftTool(t, rules); err != nil {
			t.Fatal(err)
		}
		set1(t, table, services(6))
		table.written = nil // as after a foreign change
		set1(t, table, services(5))
		words := strings.Fields(rules)
		if err := nftTool(t, "delete", "table", words[1], words[2]); err != nil {
			t.Errorf("the table of kube-proxy is gone: %v", err)
		}
	}
	if err := nftTool(t, "list", "chain", "inet", "firewall", "input"); err != nil {
		t.Errorf("the firewall's rules are gone: %v", err)
	}
}

// TestBesideOtherRules: another tool translates to pods at the same hooks, and drops what nobody translated, as Docker and firewalld do. Both
// work, whoever came first, also after ours was repaired; and ours when the other one is gone.
func TestBesideOtherRules(t *testing.T) {
	testenv.Root(t)
	needNft(t)
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		state, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
		family, to := "ip", at.a+":8080"
		if at.bits == 128 {
			family, to = "ip6", "["+at.a+"]:8080"
		}
		rules := fmt.Sprintf(`table inet other {
			chain pre { type nat hook prerouting priority -100; %[1]s daddr %[2]s tcp dport 9999 dnat %[1]s to %[3]s; };
			chain post { type nat hook postrouting priority 100; %[1]s saddr 172.17.0.0/16 masquerade; };
			chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; ct status dnat accept; };
		}`, family, at.node, to)
		if at.bits == 128 {
			rules = strings.ReplaceAll(rules, "172.17.0.0/16", "fd17::/64")
		}
		vip := fmt.Sprintf(at.vip, clusterPolicy)
		ours := map[string]string{"a": at.client, "b": at.client, "remote": at.overlay}
		table := testTable(t, InNetNS(int(n.node.ns)), WithoutOwner())
		for _, first := range []string{"the other", "ours"} {
			t.Run(first+" first", func(t *testing.T) {
				list := func() (out string) {
					n.node.do(func() {
						b, err := exec.Command("nft", "list", "table", "inet", "other").CombinedOutput()
						n.node.must(err)
						out = string(b)
					})
					return out
				}
				if first == "ours" {
					set1(t, table, state)
				}
				n.node.do(func() { n.node.must(nftTool(t, rules)) })
				is := list()
				set1(t, table, state)
				table.written = nil // as after a foreign change
				set1(t, table, state)
				if now := list(); now != is {
					t.Errorf("the other tool's rules were\n%s\nand are\n%s", is, now)
				}
				n.client.answers("tcp", at.node, 9999, map[string]string{"a": at.client})
				n.client.answers("tcp", vip, 80, ours)
				n.b.answers("tcp", fmt.Sprintf(at.service, onlyA), 80, map[string]string{"a": at.b})
				n.node.do(func() { n.node.must(nftTool(t, "delete", "table", "inet", "other")) })
				n.client.answers("tcp", vip, 80, ours)
				if err := Remove(InNetNS(int(n.node.ns))); err != nil {
					t.Error(err)
				}
				table.written = nil
			})
		}
	})
}

// TestManyEndpoints: Services with more of them than any chain is made for, and back.
func TestManyEndpoints(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: proxy.TCP, Port: 80}
	for _, n := range []int{1, 64, 65, 5000, 10_000, 9_999, 2, 0} {
		s := services(3)
		eps := endpoints("10.244.0.1", n)
		s.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps}
		set1(t, table, s)
		check(t, s)
		found, err := readback.Lookup(readback.Query{From: netip.MustParseAddr("192.0.2.1"), To: f.Addr, Protocol: f.Protocol, Port: f.Port})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			if found.Reason != ruleset.NoEndpoint {
				t.Errorf("without endpoints: %+v", found)
			}
			continue
		}
		got := slices.SortedFunc(slices.Values(found.Outside.Endpoints), netip.AddrPort.Compare)
		if !slices.Equal(got, eps) || found.Outside.Chain != fmt.Sprint("pick4-", n) {
			t.Errorf("%d endpoints: %d were found by %s", n, len(got), found.Outside.Chain)
		}
	}
}
