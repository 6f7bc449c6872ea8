package nft

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/localhost"
	"hythe.dev/hythe/node/proxy"
)

// TestLocalhostNodePorts asks NodePorts at the node's loopback addresses, with real packets, beside the table.
func TestLocalhostNodePorts(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { localhostNodePorts(t, at) })
	}
}

func localhostNodePorts(t *testing.T, at addresses) {
	n := build(t, at)
	loopback := map[int]string{32: "127.0.0.1", 128: "::1"}[at.bits]
	table := testTable(t, InNetNS(int(n.node.ns)))
	server := localhost.New(slog.New(slog.NewTextHandler(t.Output(), nil)), localhost.InNetNS(int(n.node.ns)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	ended := false
	end := func() {
		if !ended {
			ended = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	defer end()
	set := func(s proxy.State) {
		set1(t, table, s)
		server.Set(s)
	}
	state, problems := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	set(state)
	answers := func(network string, port int, want ...string) {
		t.Helper()
		seen := map[string]string{}
		for _, server := range want {
			seen[server] = map[string]string{"a": at.hairpin, "b": at.hairpin, "remote": at.overlay}[server]
		}
		n.node.eventually(fmt.Sprint("a listener at ", port), func() bool {
			_, _, err := n.node.ask(network, loopback, port)
			return err == nil
		})
		n.node.answers(network, loopback, port, seen)
	}
	answers("tcp", 30080+clusterPolicy, "a", "b", "remote")
	answers("tcp", 30080+localPolicy, "a", "remote") // a node is inside
	answers("udp", 30080+datagrams, "a", "b")
	n.node.refused("tcp", loopback, 30080+empty)
	n.client.answers("tcp", at.node, 30080+onlyA, map[string]string{"a": at.client}) // the others as ever
	for _, link := range []string{"all", "hytaaaaaaaaaaa", "hythe.vxlan", "eth0"} {
		n.node.do(func() {
			b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + link + "/route_localnet")
			if err != nil || strings.TrimSpace(string(b)) != "0" {
				t.Errorf("route_localnet of %s: %s, %v", link, b, err)
			}
		})
	}

	// A UDP client with one port follows its endpoint.
	sender := n.node.sender(loopback, 30080+datagrams)
	for _, endpoint := range []string{at.b, at.remote, at.a} {
		changed, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
		for f, b := range changed.Frontends {
			if f.Protocol == proxy.UDP {
				b.Outside = endpoints(endpoint, 1)
				b.Inside = b.Outside
				changed.Frontends[f] = b
			}
		}
		set(changed)
		sender.comesTo(map[string]string{at.a: "a", at.b: "b", at.remote: "remote"}[endpoint])
	}

	// A port that another process has is told of, and taken when it is free.
	var other net.Listener
	n.node.do(func() {
		var err error
		if other, err = net.Listen("tcp", net.JoinHostPort(loopback, "30099")); err != nil {
			t.Fatal(err)
		}
	})
	s := snapshot(at)
	s.Services.Get(serviceKey(onlyA)).Spec.Ports[0].NodePort = 30099
	moved, _ := proxy.Build(s, "one", proxy.DefaultSettings())
	set(moved)
	n.node.eventually("it is told", func() bool {
		p := server.Problems("one")
		return len(p) == 1 && p[0].Object.String() == "Service default/service-5" && strings.Contains(p[0].Message, "30099")
	})
	_ = other.Close()
	set(moved)
	answers("tcp", 30099, "a")
	if p := server.Problems("one"); len(p) != 0 {
		t.Error(p)
	}
	n.node.refused("tcp", loopback, 30080+onlyA)

	// It ends with the agent.
	n.a.hold(at.a)
	held, _ := proxy.Build(snapshot(at), "one", proxy.DefaultSettings())
	for f, b := range held.Frontends {
		b.Outside = endpoints(at.a, 1)
		b.Outside[0] = netip.AddrPortFrom(b.Outside[0].Addr(), 9090)
		b.Inside = b.Outside
		held.Frontends[f] = b
	}
	set(held)
	stream := n.node.stream(loopback, 30080+clusterPolicy)
	stream.goesOn()
	end()
	stream.ends()
	n.node.refused("tcp", loopback, 30080+clusterPolicy)
}
