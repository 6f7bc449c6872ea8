package main

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"testing"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/internal/trace/asked"
)

// TestInspectSendsNowhereElse asks an agent for packets to addresses that are none of Hythe's: it sends none.
func TestInspectSendsNowhereElse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	open := netip.MustParseAddrPort(listener.Addr().String())
	claim, pool := &v1alpha1.AddressClaim{}, &v1alpha1.AddressPool{}
	claim.Spec.Address = "192.0.2.7"
	pool.Spec.Addresses = []string{"203.0.113.10-203.0.113.19", "2001:db8::/120"}
	s := &model.Snapshot{
		Nodes:  map[string]*model.Node{"n1": {PodCIDRs: []netip.Prefix{netip.MustParsePrefix("127.1.0.0/24")}}},
		Claims: map[string]*v1alpha1.AddressClaim{"a": claim}, Pools: map[string]*v1alpha1.AddressPool{"p": pool},
	}
	n := &node{nodeOptions: nodeOptions{name: "n1"}}
	n.last.Store(s)
	for addr, allowed := range map[string]bool{
		"192.0.2.7": true, "203.0.113.10": true, "203.0.113.19": true, "::ffff:203.0.113.12": true, "2001:db8::1": true,
		"203.0.113.9": false, "203.0.113.20": false, "192.0.2.1": false, "2001:db8::1:1": false, "0.0.0.0": false,
	} {
		_, err := n.inspectARP(t.Context(), url.Values{"addr": {addr}})
		if errors.Is(err, run.ErrBadQuery) == allowed || err == nil { // else it lacks the interface
			t.Errorf("arp %s: %v, want allowed %t", addr, err, allowed)
		}
	}
	pod := func(addr, protocol string) (asked.PodAnswer, error) {
		out, err := n.inspectPod(t.Context(), url.Values{"addr": {addr}, "protocol": {protocol}})
		answer, _ := out.(asked.PodAnswer)
		return answer, err
	}
	if got, err := pod(open.String(), "tcp"); !errors.Is(err, run.ErrBadQuery) || got.Asked {
		t.Errorf("a connection to any address: %+v, %v", got, err)
	}
	if got, err := pod(open.String(), "none"); err != nil || got.Asked {
		t.Errorf("a question without a connection: %+v, %v", got, err)
	}
	if got, err := pod("127.1.0.9:1", "tcp"); err != nil || !got.Asked {
		t.Errorf("an address in the node's range: %+v, %v", got, err)
	}
	s.Endpoints = model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{{Name: "a"}: {Ports: []model.PortEndpoints{{Endpoints: []model.Endpoint{{AddrPort: open}}}}}})
	if got, err := pod(open.String(), "tcp"); err != nil || !got.Connected {
		t.Errorf("an endpoint: %+v, %v", got, err)
	}
	if _, err := pod(open.Addr().String()+":1", "tcp"); !errors.Is(err, run.ErrBadQuery) {
		t.Errorf("another port of the machine that an endpoint is on: %v", err)
	}
}
