package proxy

import (
	"maps"
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/model"
)

// withoutForeign takes away from the Services those VIPs that are somebody else's: a frontend at a node's address would
// take that node's own connections.
func withoutForeign(s *model.Snapshot, vips map[model.Key][]netip.Addr) []model.Problem {
	all := map[netip.Addr]bool{}
	for _, addrs := range vips {
		for _, a := range addrs {
			all[a] = true
		}
	}
	foreign := model.ForeignAddresses(s, slices.SortedFunc(maps.Keys(all), netip.Addr.Compare))
	var problems []model.Problem
	for a, owner := range foreign {
		problems = append(problems, model.ForeignClaim(a, owner))
	}
	for key, addrs := range vips {
		vips[key] = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return foreign[a] != "" })
	}
	return problems
}
