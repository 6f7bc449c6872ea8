package model

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
)

// ReasonForeignAddress says that a claim's address is a node's, a pod's or a ClusterIP.
const ReasonForeignAddress = "ForeignAddress"

// ForeignAddresses says whose those of the sorted addresses are that belong to somebody else than a LoadBalancer
// Service: to a node, to pods, to a Service inside of the cluster, or to nobody ever. They cannot be VIPs, whatever a
// pool or a claim says: who announces a node's address takes the node off the LAN. The cost is that of a walk over
// nodes and Services, however many addresses there are.
func ForeignAddresses(s *Snapshot, addrs []netip.Addr) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	if len(addrs) == 0 {
		return out
	}
	note := func(p netip.Prefix, owner string) {
		i, _ := slices.BinarySearchFunc(addrs, p.Addr(), netip.Addr.Compare)
		for ; i < len(addrs) && p.Contains(addrs[i]); i++ {
			if old, ok := out[addrs[i]]; !ok || owner < old { // the same one each time
				out[addrs[i]] = owner
			}
		}
	}
	single := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	for _, n := range s.Nodes {
		_ = contain.Do(func() { // the overlay tells of it
			for _, a := range n.Addresses {
				note(single(a.Unmap()), "it is the address of node "+n.Name)
			}
			for _, p := range n.PodCIDRs {
				note(p.Masked(), "it is in the pod CIDR "+p.String()+" of node "+n.Name)
			}
		})
	}
	for key, svc := range s.Services.All() {
		_ = contain.Do(func() { // who builds the Service tells of it
			for _, a := range ClusterIPs(svc) {
				note(single(a), "it is the ClusterIP of Service "+key.String())
			}
		})
	}
	for _, n := range notOfPods {
		note(n.prefix, "it is "+n.name)
	}
	return out
}

// ClusterIPs returns the ClusterIPs of a Service; a headless one has none.
func ClusterIPs(svc *corev1.Service) []netip.Addr {
	list := svc.Spec.ClusterIPs
	if len(list) == 0 {
		list = []string{svc.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, text := range list {
		if a, err := netip.ParseAddr(text); err == nil { // "None" and "" are no addresses
			out = append(out, a.Unmap())
		}
	}
	return out
}

// ForeignClaim is the Problem of a claim whose address is somebody else's.
func ForeignClaim(a netip.Addr, owner string) Problem {
	return Problemf(ObjectRef{Kind: "AddressClaim", Name: v1alpha1.ClaimName(a)}, ReasonForeignAddress,
		"%s is not announced: %s. Take it out of its AddressPool and delete its Services, or let them ask for another address.", a, owner)
}
