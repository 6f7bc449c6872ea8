package proxy

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// resetsGone says whether TCP connections to endpoints that are gone are reset: as the Service's annotation says, or
// else, without one, as is set for all.
func (b *serviceBuilder) resetsGone() bool {
	switch value := b.svc.Annotations[v1alpha1.EndpointGoneAnnotation]; value {
	case "":
	case v1alpha1.EndpointGoneReset:
		return true
	case v1alpha1.EndpointGoneKeep:
		return false
	default:
		b.problemf("InvalidEndpointGone", "The annotation %s is not used: write %s or %s.",
			v1alpha1.EndpointGoneAnnotation, v1alpha1.EndpointGoneReset, v1alpha1.EndpointGoneKeep)
	}
	return b.resetAll
}

// keep returns the endpoints of a frontend that get no new connections, and that keep those they have. UDP flows stay with
// an endpoint that serves, also while it terminates or hints and policies lead elsewhere. A TCP connection stays with one
// that is there at all: a pod that is asked to end says that it is not ready, and carries to an end what it began.
func (b *serviceBuilder) keep(f Frontend, backends Backends, eps []model.Endpoint) []netip.AddrPort {
	var stay []model.Endpoint
	for _, e := range eps {
		if f.Protocol == UDP && (e.Ready || e.Serving) || f.Protocol == TCP && b.reset {
			stay = append(stay, e)
		}
	}
	return slices.DeleteFunc(addrPorts(stay, f.Addr), backends.Serves)
}

// Serves says whether new connections come to an endpoint, from sources outside or inside.
func (b Backends) Serves(e netip.AddrPort) bool {
	return has(b.Outside, e) || has(b.Inside, e)
}

// Keeps says whether connections to an endpoint go on.
func (b Backends) Keeps(e netip.AddrPort) bool { return b.Serves(e) || has(b.Keep, e) }

func has(sorted []netip.AddrPort, e netip.AddrPort) bool {
	_, found := slices.BinarySearchFunc(sorted, e, netip.AddrPort.Compare)
	return found
}
