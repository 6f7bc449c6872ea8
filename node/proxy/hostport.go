package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	// ofNode4 and ofNode6 stand for each address of this node, as a NodePort does.
	ofNode4, ofNode6 = netip.IPv4Unspecified(), netip.IPv6Unspecified()
)

// addHostPorts adds the host ports of this node's pods, after the Services: what a Service has stays with it. A pod sees
// the client's own address.
func (s *State) addHostPorts(self string, settings Settings) []model.Problem {
	var problems []model.Problem
	for _, p := range settings.HostPorts {
		object := model.ObjectRef{Kind: "Node", Name: self}
		problems = append(problems, model.Contain(object, "The host port of a pod does not lead to it", func() {
			if why := s.addHostPort(p, settings); why != "" {
				problems = append(problems, model.Problemf(object, "HostPortRefused",
					"hostPort %d (%s) does not lead to %s: %s. Give the pod another hostPort or hostIP, or none and a Service.",
					p.Port, p.Protocol, podName(p.Owner), why))
			}
		})...)
	}
	return problems
}

// addHostPort adds one host port, or says why it does not. It has all frontends of a family, or none.
func (s *State) addHostPort(p HostPort, settings Settings) string {
	if what, own := settings.OwnPorts[model.Port{Protocol: corev1.Protocol(strings.ToUpper(p.Protocol.String())), Number: p.Port}]; own {
		return "it is that of " + what
	}
	if a := p.Addr; a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !slices.Contains(settings.LocalAddresses, a) {
		return fmt.Sprintf("%s is no address of this node", a)
	}
	why := fmt.Sprintf("the pod has no address of the family of %s", p.Addr)
	for _, pod := range p.Pods {
		frontends, to := s.atEach(p.frontends(pod), settings.LocalAddresses), netip.AddrPortFrom(pod, p.PodPort)
		if len(frontends) == 0 {
			continue
		}
		if why = s.takenOf(frontends, to); why != "" {
			return why
		}
		for _, f := range frontends {
			s.Frontends[f] = Backends{Outside: []netip.AddrPort{to}, Inside: []netip.AddrPort{to}, Reset: settings.ResetGone && f.Protocol == TCP}
			s.HostPorts[f] = p.Owner
			s.Hairpins[pod] = struct{}{}
		}
	}
	return why
}

// takenOf says who has one of the frontends already, or returns "".
func (s *State) takenOf(frontends []Frontend, to netip.AddrPort) string {
	for _, f := range frontends {
		if why := s.taken(f, to); why != "" {
			return why
		}
	}
	return ""
}

// frontends are where the host port leads to a pod's address from. A NodePort is not served at loopback addresses, so a
// port of all addresses takes 127.0.0.1 in addition. It does not take ::1, which is refused at once: connections that a
// node makes from ::1 never leave it.
func (p HostPort) frontends(pod netip.Addr) []Frontend {
	at := func(a netip.Addr) Frontend { return Frontend{a, p.Protocol, p.Port} }
	switch {
	case p.Addr.IsValid() && p.Addr.Is4() != pod.Is4():
		return nil
	case p.Addr.IsValid() && !p.Addr.IsUnspecified():
		return []Frontend{at(p.Addr)}
	case pod.Is4():
		return []Frontend{at(ofNode4), at(loopback4)}
	}
	return []Frontend{at(ofNode6)}
}

// atEach names the addresses of this node, in the place of all of them, where NodePorts are at some only: host ports are at
// each.
func (s *State) atEach(frontends []Frontend, local []netip.Addr) []Frontend {
	var out []Frontend
	for _, f := range frontends {
		everywhere := ofNode4
		if f.Addr.Is6() {
			everywhere = ofNode6
		}
		if _, all := s.NodePortRanges[netip.PrefixFrom(everywhere, 0)]; all || f.Addr != everywhere {
			out = append(out, f)
			continue
		}
		for _, a := range local {
			if a.Is4() == f.Addr.Is4() && !a.IsLoopback() {
				out = append(out, Frontend{a, f.Protocol, f.Port})
			}
		}
	}
	return out
}

// taken says who has the frontend already. A NodePort is at all addresses of this node but loopback: a host port at one of
// them would take it from there.
func (s *State) taken(f Frontend, to netip.AddrPort) string {
	nodePort := Frontend{ofNode4, f.Protocol, f.Port}
	if f.Addr.Is6() {
		nodePort.Addr = ofNode6
	}
	if owner, is := s.Owners[nodePort]; is && !f.Addr.IsLoopback() {
		return fmt.Sprintf("it is the NodePort of Service %s", owner)
	}
	if owner, is := s.Owners[f]; is {
		return fmt.Sprintf("%s belongs to Service %s", f, owner)
	}
	if _, is := s.Addresses[f.Addr]; is {
		return fmt.Sprintf("%s is the address of a Service", f.Addr)
	}
	if b, is := s.Frontends[f]; is && !slices.Contains(b.Inside, to) {
		return fmt.Sprintf("%s leads to %s already", f, podName(s.HostPorts[f]))
	}
	return ""
}
