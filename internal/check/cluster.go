package check

import (
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/lb"
)

// ClusterOf is what a Snapshot tells the node named self. The caller adds what the Snapshot does not tell.
func ClusterOf(s *model.Snapshot, self string) Cluster {
	c := Cluster{Known: true, Node: self}
	for _, n := range s.Nodes {
		if n.Name == self {
			c.Addresses, c.PodCIDRs = n.Addresses, n.PodCIDRs
			continue
		}
		p := Peer{Node: n.Name, PodCIDRs: n.PodCIDRs, Address: n.Address(false)}
		if !p.Address.IsValid() {
			p.Address = n.Address(true)
		}
		c.Peers = append(c.Peers, p)
	}
	slices.SortFunc(c.Peers, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })
	for _, svc := range s.Services.All() {
		for _, text := range append(slices.Clone(svc.Spec.ClusterIPs), svc.Spec.ClusterIP) {
			if a, err := netip.ParseAddr(text); err == nil {
				c.Services = append(c.Services, block(a))
			}
		}
	}
	c.Services = sortedPrefixes(c.Services)
	for _, pool := range s.Pools {
		for _, text := range pool.Spec.Addresses {
			if r, err := lb.ParseRange(text); err == nil { // else a Problem says so
				c.Pools = append(c.Pools, Pool{pool.Name, r.First, r.Last})
			}
		}
	}
	slices.SortFunc(c.Pools, func(a, b Pool) int { return a.First.Compare(b.First) })
	for _, claim := range s.Claims {
		if a, err := netip.ParseAddr(claim.Spec.Address); err == nil {
			c.VIPs = append(c.VIPs, a)
		}
	}
	slices.SortFunc(c.VIPs, netip.Addr.Compare)
	return c
}

// block stands for the range that a ClusterIP was given from, of which no object tells: 256 or 65536 addresses of it.
func block(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 112
	}
	p, _ := a.Prefix(bits) // bits fit the family
	return p
}

func sortedPrefixes(in []netip.Prefix) []netip.Prefix {
	slices.SortFunc(in, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return slices.Compact(in)
}
