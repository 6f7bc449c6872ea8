package gateway

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/model"
)

// buildServiceAddress is the EndpointSet of the Service's own address, where there are pods behind it. A Service some of
// whose endpoints are refused, or that has no address, is served by its pods: by its address the refused ones could be reached.
func buildServiceAddress(t target, endpoints *model.ServiceEndpoints, own model.Own, clusterIPs []netip.Addr) (EndpointSet, []model.Problem) {
	set, problems := buildEndpoints(t.servicePort, endpoints, own)
	set.Name = t.endpoints()
	if len(set.Addresses) == 0 || len(problems) > 0 {
		return set, problems
	}
	var out []netip.AddrPort
	for _, a := range clusterIPs {
		out = append(out, netip.AddrPortFrom(a, uint16(t.port.Port)))
	}
	if len(out) > 0 {
		slices.SortFunc(out, netip.AddrPort.Compare)
		set.Addresses = out[:1] // both families lead to the same pods
	}
	return set, problems
}
