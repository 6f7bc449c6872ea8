package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/contain"
)

// ReasonEndpointRefused says that an endpoint is not used, since its address or port cannot be those of a pod.
const ReasonEndpointRefused = "EndpointRefused"

// A Port is a port of a node.
type Port struct {
	Protocol corev1.Protocol
	Number   uint16
}

// OwnPorts are the ports of nodes that no Service may lead to, with what listens there. Whoever may write
// EndpointSlices would reach through them what only the node itself, or other nodes, should: admin pages are
// without a password, and a packet to the overlay's port is one from any pod to any pod.
type OwnPorts map[Port]string

// DefaultOwnPorts returns the ports of a cluster in which no flag says otherwise: those of --admin of each process, of
// members.DefaultPort and of overlay.Settings. Envoy's admin pages have no port, only a socket.
func DefaultOwnPorts() OwnPorts {
	return OwnPorts{
		{corev1.ProtocolTCP, 9901}: "the admin pages of hythe controller",
		{corev1.ProtocolTCP, 9902}: "the admin pages of hythe gateway",
		{corev1.ProtocolTCP, 9903}: "the admin pages of hythe node",
		{corev1.ProtocolUDP, 7472}: "the heartbeats between nodes",
		{corev1.ProtocolUDP, 4789}: "the overlay between nodes",
	}
}

// Own is what of Hythe itself no endpoint may lead to. The zero Own knows nothing of Hythe, and refuses only what is
// no pod's address anywhere. Make one for a Snapshot, by OwnOf, and ask it for all Services.
type Own struct {
	nodes map[netip.Addr]string // "node n1", by address
	vips  map[netip.Addr]bool
	ports OwnPorts
}

// OwnOf reads the addresses of nodes and VIPs from a snapshot. An address that is somebody else's is no VIP, whatever a
// claim says: it would take a node's address from the pods that use it. The local ones are further addresses of the host that
// asks, which its Node object need not name; nil for none.
func OwnOf(s *Snapshot, ports OwnPorts, local ...netip.Addr) Own {
	o := Own{nodes: map[netip.Addr]string{}, vips: map[netip.Addr]bool{}, ports: ports}
	for _, a := range local {
		o.nodes[a.Unmap()] = "this node"
	}
	for _, n := range s.Nodes {
		_ = contain.Do(func() { // the overlay tells of it
			for _, a := range n.Addresses {
				o.nodes[a.Unmap()] = "node " + n.Name
			}
		})
	}
	var claimed []netip.Addr
	for _, c := range s.Claims {
		_ = contain.Do(func() { // the controller tells of it
			if a, err := netip.ParseAddr(c.Spec.Address); err == nil {
				claimed = append(claimed, a.Unmap())
			}
		})
	}
	slices.SortFunc(claimed, netip.Addr.Compare)
	foreign := ForeignAddresses(s, claimed)
	for _, a := range claimed {
		if _, is := foreign[a]; !is {
			o.vips[a] = true
		}
	}
	return o
}

// notOfPods are addresses that no pod has, with their name (RFC 6890, RFC 4291 section 2.5).
var notOfPods = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("::/96"), "an IPv4 address in IPv6"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	// Where clouds tell a machine its secrets, besides 169.254.169.254.
	{netip.MustParsePrefix("100.100.100.200/32"), "a cloud's metadata address"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's metadata address"},
	{netip.MustParsePrefix("192.0.0.192/32"), "a cloud's metadata address"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "a cloud's metadata address"},
}

// nat64 is how IPv6 names all IPv4 addresses where a gateway translates (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Refuse says why nothing may be sent to an endpoint (CVE-2021-25740), or returns "" where it may. Addresses of nodes
// are fine on all ports but Hythe's own: pods with hostNetwork and the API server have them. An IPv4-mapped address is
// judged as the IPv4 address.
func (o Own) Refuse(protocol corev1.Protocol, endpoint netip.AddrPort) string {
	a := endpoint.Addr().Unmap()
	if nat64.Contains(a) {
		a = netip.AddrFrom4([4]byte(a.AsSlice()[12:]))
	}
	switch {
	case !a.IsValid():
		return "it is no address"
	case a.Zone() != "":
		return "it has a zone"
	case endpoint.Port() == 0:
		return "its port is 0"
	}
	for _, n := range notOfPods {
		if n.prefix.Contains(a) {
			return "it is " + n.name
		}
	}
	if o.vips[a] {
		return "it is an address of a LoadBalancer Service"
	}
	if node, ok := o.nodes[a]; ok {
		if what, own := o.ports[Port{cmp.Or(protocol, corev1.ProtocolTCP), endpoint.Port()}]; own {
			return fmt.Sprintf("on %s it is that of %s", node, what)
		}
	}
	return ""
}

// Allowed returns those endpoints of a Service port that may be sent to, and one Problem about the others. Where all
// may, it returns the slice that it was given.
func (o Own) Allowed(service Key, port *corev1.ServicePort, endpoints []Endpoint) ([]Endpoint, []Problem) {
	protocol := ProtocolOf(port)
	var refused []string
	allowed := endpoints
	for i, e := range endpoints {
		why := o.Refuse(protocol, e.AddrPort)
		if why == "" {
			if refused != nil {
				allowed = append(allowed, e)
			}
			continue
		}
		if refused == nil {
			allowed = slices.Clone(endpoints[:i])
		}
		refused = append(refused, e.AddrPort.String()+" ("+why+")")
	}
	if refused == nil {
		return endpoints, nil
	}
	return allowed, []Problem{refusedProblem(service, port, refused)}
}

func refusedProblem(service Key, port *corev1.ServicePort, refused []string) Problem {
	const few = 4
	list := strings.Join(refused[:min(few, len(refused))], ", ")
	if len(refused) > few {
		list += ", …"
	}
	return Problemf(Ref("Service", service), ReasonEndpointRefused,
		"%d endpoints of port %d are not used: %s. Name addresses of pods in the EndpointSlices with the label kubernetes.io/service-name=%s.",
		len(refused), port.Port, list, service.Name)
}
