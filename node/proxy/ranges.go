package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// serviceRanges returns the CIDRs of all ServiceCIDR objects, sorted and none within another. ClusterIPs are taken from them,
// so that an address there belongs to a Service or to nobody. Ranges that have addresses of others are left out: what is sent
// to those must not be dropped. local are addresses of this node that its Node object need not name.
func serviceRanges(s *model.Snapshot, local []netip.Addr) ([]netip.Prefix, []model.Problem) {
	var ranges []netip.Prefix
	var problems []model.Problem
	services := sync.OnceValue(func() map[netip.Addr]bool { return clusterIPs(s) })
	for _, name := range slices.Sorted(maps.Keys(s.ServiceCIDRs)) {
		object := model.ObjectRef{Kind: "ServiceCIDR", Name: name}
		problems = append(problems, model.Contain(object, "Its addresses are not watched over", func() {
			for _, text := range s.ServiceCIDRs[name].Spec.CIDRs {
				p, err := netip.ParsePrefix(text)
				if err != nil {
					problems = append(problems, model.Problemf(object, "InvalidServiceCIDR", "spec.cidrs has %q, which is no range. Write such as 10.96.0.0/16.", text))
					continue
				}
				p = unmapped(p).Masked()
				if whose := othersIn(p, s, local, services); whose != "" {
					problems = append(problems, model.Problemf(object, "ServiceCIDROverlaps",
						"Packets to addresses of %s that no Service has are not dropped, since it has %s. Give the cluster ranges that do not overlap.", p, whose))
					continue
				}
				ranges = append(ranges, p)
			}
		})...)
	}
	return merge(ranges), problems
}

// othersIn says what within p is not a Service's, "" if there is nothing known. services are the addresses of Services, which
// a node may have too, as with a DNS cache on each node, or with what kube-proxy leaves on kube-ipvs0: all of them.
func othersIn(p netip.Prefix, s *model.Snapshot, local []netip.Addr, services func() map[netip.Addr]bool) string {
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		whose := ""
		_ = contain.Do(func() { // the overlay tells of it
			for _, a := range s.Nodes[name].Addresses {
				if p.Contains(a) {
					whose = fmt.Sprintf("the address %s of node %s", a, name)
				}
			}
			for _, pods := range s.Nodes[name].PodCIDRs {
				if p.Overlaps(pods) {
					whose = fmt.Sprintf("addresses of the pod CIDR %s of node %s", pods, name)
				}
			}
		})
		if whose != "" {
			return whose
		}
	}
	for _, a := range local {
		if p.Contains(a) && !services()[a] {
			return fmt.Sprintf("%s, an address of this node", a)
		}
	}
	return ""
}

// clusterIPs are the addresses of all Services.
func clusterIPs(s *model.Snapshot) map[netip.Addr]bool {
	out := make(map[netip.Addr]bool, s.Services.Len())
	for _, svc := range s.Services.All() {
		_ = contain.Do(func() { // addServices tells of it
			for _, a := range model.ClusterIPs(svc) {
				out[a] = true
			}
		})
	}
	return out
}

// everywhere are the ranges of all addresses.
func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// NodePortsAt returns where the addresses of a node have to be for NodePorts. node is nil while it is not registered.
func (settings Settings) NodePortsAt(node *model.Node) []netip.Prefix {
	ranges := slices.Clone(settings.NodePortRanges)
	if settings.NodePortPrimary && node != nil {
		_ = contain.Do(func() { // the overlay tells of it
			for _, a := range []netip.Addr{node.Address(false), node.Address(true)} {
				if a.IsValid() {
					ranges = append(ranges, netip.PrefixFrom(a, a.BitLen()))
				}
			}
		})
	}
	if !settings.NodePortPrimary && len(ranges) == 0 {
		ranges = everywhere()
	}
	return merge(ranges)
}

// ParseNodePortAddresses reads which addresses of a node serve NodePorts: ranges such as 192.0.2.0/24, or "primary" for the
// first InternalIP of each family of its Node object. No word is all addresses. A family of which no word is has none.
func ParseNodePortAddresses(words []string) (ranges []netip.Prefix, primary bool, err error) {
	for _, word := range words {
		if word = strings.TrimSpace(word); word == "primary" {
			primary = true
			continue
		}
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, false, fmt.Errorf("read NodePort addresses: %q is neither \"primary\" nor a range such as 192.0.2.0/24", word)
		}
		ranges = append(ranges, unmapped(p).Masked())
	}
	return merge(ranges), primary, nil
}

// HasNodePorts says whether NodePorts are served at an address, if it is one of this node.
func (s State) HasNodePorts(a netip.Addr) bool {
	for p := range s.NodePortRanges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
