package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/link"
)

// A peer is a node whose addresses were found good.
type peer struct {
	name   string
	node   netip.Addr // in the underlay
	mac    link.MAC
	ranges []netip.Prefix // of pods, masked
}

// Build returns what the node named self should have to reach the pods of all others, and what is wrong with
// Nodes. A bad Node costs that Node only. If self is unknown or bad, the State says Keep: an overlay that works
// is not taken down for it.
func Build(s *model.Snapshot, self string, settings Settings) (State, []model.Problem) {
	settings = settings.withDefaults()
	if settings.Mode == None {
		return State{Protocol: link.ProtocolOverlay}, nil
	}
	own, ok := s.Nodes[self]
	if !ok {
		return State{Keep: true}, []model.Problem{model.Problemf(node(self), "NodeNotFound",
			"there is no Node of this name yet; the overlay stays as it is")}
	}
	peers, problems := peers(s.Nodes, underlayIs6(own))
	i := slices.IndexFunc(peers, func(p peer) bool { return p.name == self })
	if i < 0 {
		return State{Keep: true}, model.SortProblems(problems)
	}
	state := base(peers[i], settings)
	for j, p := range peers {
		if i != j {
			add(&state, peers[i], p)
		}
	}
	return state, model.SortProblems(problems)
}

func node(name string) model.ObjectRef { return model.ObjectRef{Kind: "Node", Name: name} }

// underlayIs6 reports the family of the outer packets: IPv4 wherever a node has it.
func underlayIs6(own *model.Node) bool { return !own.Address(false).IsValid() }

// peers checks all nodes, the oldest first, then in the order of their names: of two that claim the same, the first
// keeps it, so that a node that joins with a bad range takes it from nobody.
func peers(nodes map[string]*model.Node, is6 bool) ([]peer, []model.Problem) {
	t := taken{nodes: map[netip.Addr]string{}, macs: map[link.MAC]string{}, owners: map[netip.Prefix]string{}}
	var good []peer
	var problems []model.Problem
	for _, name := range byAge(nodes) {
		n := nodes[name]
		fault := model.Contain(node(name), "Its pods are not reached from other nodes", func() {
			p := peer{name: n.Name, node: n.Address(is6), mac: nodeMAC(n.Name)}
			for _, r := range n.PodCIDRs {
				p.ranges = append(p.ranges, r.Masked())
			}
			reason, message := t.checkAddresses(n.Addresses)
			t.takeAddresses(n.Addresses) // of bad nodes too: their hosts are on the network
			if reason == "" {
				reason, message = t.check(p)
			}
			if reason != "" {
				problems = append(problems, model.Problemf(node(n.Name), reason, "%s", message))
				return
			}
			t.take(p)
			good = append(good, p)
		})
		problems = append(problems, fault...)
	}
	return good, problems
}

// byAge returns the names of nodes, the oldest first.
func byAge(nodes map[string]*model.Node) []string {
	return slices.SortedFunc(maps.Keys(nodes), func(a, b string) int {
		return cmp.Or(model.CompareAge(nodes[a].Created, nodes[b].Created), cmp.Compare(a, b))
	})
}

// taken is what the nodes checked so far have.
type taken struct {
	addresses []netip.Addr // sorted
	nodes     map[netip.Addr]string
	macs      map[link.MAC]string
	ranges    []netip.Prefix // sorted; none overlaps another
	owners    map[netip.Prefix]string
}

func (t *taken) take(p peer) {
	t.nodes[p.node], t.macs[p.mac] = p.name, p.name
	for _, r := range p.ranges {
		i, _ := slices.BinarySearchFunc(t.ranges, r, byAddress)
		t.ranges = slices.Insert(t.ranges, i, r)
		t.owners[r] = p.name
	}
}

func (t *taken) takeAddresses(addresses []netip.Addr) {
	for _, a := range addresses {
		i, _ := slices.BinarySearchFunc(t.addresses, a, netip.Addr.Compare)
		t.addresses = slices.Insert(t.addresses, i, a)
	}
}

// checkAddresses checks the addresses of a node against the pod ranges of others.
func (t *taken) checkAddresses(addresses []netip.Addr) (reason, message string) {
	for _, a := range addresses {
		i, found := slices.BinarySearchFunc(t.ranges, a, func(r netip.Prefix, a netip.Addr) int { return r.Addr().Compare(a) })
		if !found {
			i--
		}
		if i >= 0 && t.ranges[i].Contains(a) {
			return "PodCIDROverlap", fmt.Sprintf("its InternalIP %s is in the pod CIDR %s of Node %s, which keeps it; %s", a, t.ranges[i], t.owners[t.ranges[i]], otherAddress)
		}
	}
	return "", ""
}

// The remedies: spec.podCIDRs of a Node cannot be changed.
const (
	otherRange   = "delete the Node and let it register anew, with another range"
	otherAddress = "give it another address with its kubelet's --node-ip"
)

// check returns why p cannot be part of the overlay; no reason means that it can.
func (t *taken) check(p peer) (reason, message string) {
	if !p.node.IsValid() {
		return "NoInternalIP", "it has no InternalIP of the family that the overlay runs on; its pods cannot be reached from other nodes; " + otherAddress
	}
	if len(p.ranges) == 0 {
		return "NoPodCIDR", "it has no spec.podCIDRs; set it, or run kube-controller-manager with --allocate-node-cidrs"
	}
	if other, ok := t.nodes[p.node]; ok {
		return "NodeAddressConflict", fmt.Sprintf("it has the InternalIP %s, and so has Node %s, which keeps it; %s", p.node, other, otherAddress)
	}
	if other, ok := t.macs[p.mac]; ok {
		return "OverlayAddressConflict", fmt.Sprintf("its name gives the hardware address %s, and so does that of Node %s; rename one", p.mac, other)
	}
	for i, r := range p.ranges {
		if reason, message = t.checkRange(r, p.ranges[:i]); reason != "" {
			return reason, message
		}
	}
	return "", ""
}

// checkRange checks one pod range of a node that has also the ranges before.
func (t *taken) checkRange(r netip.Prefix, before []netip.Prefix) (reason, message string) {
	if !usable(r) {
		return "InvalidPodCIDR", fmt.Sprintf("its pod CIDR %s is not a range for pods; %s", r, otherRange)
	}
	is6 := r.Addr().Is6()
	if slices.ContainsFunc(before, func(b netip.Prefix) bool { return b.Addr().Is6() == is6 }) {
		return "InvalidPodCIDR", fmt.Sprintf("its pod CIDR %s is the second of its family; %s", r, otherRange)
	}
	i, _ := slices.BinarySearchFunc(t.addresses, r.Addr(), netip.Addr.Compare)
	if i < len(t.addresses) && r.Contains(t.addresses[i]) {
		return "PodCIDROverlap", fmt.Sprintf("its pod CIDR %s contains the node address %s; %s", r, t.addresses[i], otherRange)
	}
	// Ranges that do not overlap are in the order of their addresses: only two can touch r.
	i, _ = slices.BinarySearchFunc(t.ranges, r, byAddress)
	for _, k := range []int{i - 1, i} {
		if k >= 0 && k < len(t.ranges) && t.ranges[k].Overlaps(r) {
			return "PodCIDROverlap", fmt.Sprintf("its pod CIDR %s overlaps that of Node %s, which keeps it; %s", r, t.owners[t.ranges[k]], otherRange)
		}
	}
	return "", ""
}

func byAddress(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }

func usable(r netip.Prefix) bool {
	a := r.Addr()
	return r.IsValid() && r.Bits() > 0 && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		!a.IsLinkLocalUnicast() && !a.Is4In6()
}

// base is what a node has without any peer.
func base(own peer, settings Settings) State {
	s := State{
		Protocol: link.ProtocolOverlay,
		VXLAN: &link.VXLAN{Name: link.OverlayName, VNI: settings.VNI, Port: settings.Port, Local: own.node,
			MAC: own.mac, MTU: settings.MTU, Overhead: overhead(own.node)},
		Sysctls: sysctls(own),
	}
	for _, r := range own.ranges {
		s.Addresses = append(s.Addresses, link.Address{Device: link.OverlayName, Prefix: single(r.Addr())})
		// A packet to a pod that is gone must not leave by the default route, and come back.
		s.Routes = append(s.Routes, link.Route{Dst: r, Unreachable: true})
	}
	return s
}

// add adds the way to one peer, in the families that both have.
func add(s *State, own, p peer) {
	s.Forwards = append(s.Forwards, link.Forward{Device: link.OverlayName, MAC: p.mac, Dst: p.node})
	for _, r := range p.ranges {
		i := slices.IndexFunc(own.ranges, func(o netip.Prefix) bool { return o.Addr().Is6() == r.Addr().Is6() })
		if i < 0 {
			continue
		}
		s.Neighbours = append(s.Neighbours, link.Neighbour{Device: link.OverlayName, Addr: r.Addr(), MAC: p.mac})
		s.Routes = append(s.Routes, link.Route{Dst: r, Device: link.OverlayName, Via: r.Addr(), Src: own.ranges[i].Addr()})
	}
}

// sysctls are those of a node that routes for pods.
func sysctls(own peer) []link.Sysctl {
	list := []link.Sysctl{
		{Name: "net/ipv4/ip_forward", Value: "1"},
		// Redirects would tell hosts of the LAN a way around this node. Those of "all" count for every link.
		{Name: "net/ipv4/conf/all/send_redirects", Value: "0"},
		{Name: "net/ipv4/conf/default/send_redirects", Value: "0"},
		{Name: "net/ipv4/conf/" + link.UnderlayName + "/send_redirects", Value: "0"},
		{Name: "net/ipv4/conf/" + link.OverlayName + "/send_redirects", Value: "0"},
		// Loose: a node answers a pod over the overlay, from an address that is reached by the underlay.
		{Name: "net/ipv4/conf/" + link.OverlayName + "/rp_filter", Value: "2"},
		{Name: "net/ipv6/conf/" + link.OverlayName + "/accept_ra", Value: "0"},
		// No link-local address: nobody on the overlay is to be found by multicast.
		{Name: "net/ipv6/conf/" + link.OverlayName + "/addr_gen_mode", Value: "1"},
	}
	if slices.ContainsFunc(own.ranges, func(r netip.Prefix) bool { return r.Addr().Is6() }) {
		list = append(list,
			// A host that forwards ignores router advertisements unless told 2: keep its default route.
			link.Sysctl{Name: "net/ipv6/conf/" + link.UnderlayName + "/accept_ra", Value: "2", Only: "1"},
			link.Sysctl{Name: "net/ipv6/conf/all/forwarding", Value: "1"})
	}
	return list
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
