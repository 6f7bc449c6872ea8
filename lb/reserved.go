package lb

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// clusterIPs lists the ClusterIPs of all Services, sorted.
func clusterIPs(s *model.Snapshot) []netip.Addr {
	var out []netip.Addr
	for _, svc := range s.Services.All() {
		_ = contain.Do(func() { out = append(out, model.ClusterIPs(svc)...) }) // who builds the Service tells of it
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// firstIn returns the first of the sorted addresses that is in r.
func firstIn(r Range, addrs []netip.Addr) (netip.Addr, bool) {
	i, _ := slices.BinarySearchFunc(addrs, r.First, netip.Addr.Compare)
	if i < len(addrs) && r.contains(addrs[i]) {
		return addrs[i], true
	}
	return netip.Addr{}, false
}
