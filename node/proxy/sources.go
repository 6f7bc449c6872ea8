package proxy

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// parseSources returns who may reach the Service's VIPs, and its NodePorts if that is set: nil is everybody. A range that cannot be read lets nobody in:
// what was meant to be closed is not open.
func (b *serviceBuilder) parseSources() []netip.Prefix {
	texts := b.svc.Spec.LoadBalancerSourceRanges
	if len(b.vips) == 0 && !b.nodePortSources || len(texts) == 0 || b.svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	ranges := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(text)) // the API server takes spaces
		if err != nil {
			b.problemf("InvalidSourceRange",
				"spec.loadBalancerSourceRanges has %q, which lets nobody in. Write an address and a length, such as 192.0.2.0/24.", text)
			continue
		}
		ranges = append(ranges, unmapped(p).Masked())
	}
	b.tellFamilies(ranges)
	return merge(ranges)
}

// tellFamilies says which VIPs and NodePorts nobody can reach, since all ranges are of the other family.
func (b *serviceBuilder) tellFamilies(ranges []netip.Prefix) {
	closed := func(addr netip.Addr) bool {
		own := ofFamily(ranges, addr)
		return len(ranges) > 0 && own != nil && len(own) == 0
	}
	for _, vip := range b.vips {
		if closed(vip) {
			b.problemf("NoSourceRange",
				"spec.loadBalancerSourceRanges has no range of the family of %s, so nobody reaches that address. Add one; 0.0.0.0/0 or ::/0 is everybody.", vip)
		}
	}
	if !b.nodePortSources || !slices.ContainsFunc(b.svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort != 0 }) {
		return
	}
	for _, addr := range b.clusterIPs {
		if closed(addr) {
			family, everybody := "IPv4", "0.0.0.0/0"
			if addr.Is6() {
				family, everybody = "IPv6", "::/0"
			}
			b.problemf("NoSourceRange",
				"spec.loadBalancerSourceRanges has no %s range, so nobody reaches its NodePorts over %s. Add one; %s is everybody.", family, family, everybody)
		}
	}
}

// unmapped turns a range of IPv4 addresses in IPv6 into one of IPv4 addresses.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// merge sorts ranges and leaves out those that another one contains. Of two that overlap one contains the other, and
// the kernel takes no overlaps. Sorted like this, each comes right after the one that contains it, if any does.
func merge(ranges []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ranges, comparePrefixes)
	out := ranges[:0]
	for _, p := range ranges {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// ofFamily returns the ranges of the family of addr: nil if there is no restriction, or everybody of that family may.
func ofFamily(ranges []netip.Prefix, addr netip.Addr) []netip.Prefix {
	if ranges == nil {
		return nil
	}
	out := []netip.Prefix{}
	for _, p := range ranges {
		if p.Addr().Is4() != addr.Is4() {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		out = append(out, p)
	}
	return out
}
