package ruleset

import (
	"github.com/google/nftables"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// Names of sets without the digit of their family. The maps that picks describes are named there.
const (
	AddressesSet  = "addresses"       // ClusterIPs and VIPs
	PingsSet      = "pings"           // VIP : the address that answers
	PodRangesSet  = "pod-ranges"      // the pod CIDRs of the cluster
	HairpinsSet   = "hairpins"        // local pods, as source . destination
	NodePortsSet  = "node-ports"      // protocol . port of all NodePorts
	OverlaysSet   = "overlays"        // interface names
	EmptySet      = "empty-frontends" // frontends without any endpoint, but for NodePorts
	RestrictedSet = "restricted"      // frontends that are only for some sources
	SourcesSet    = "sources"         // those frontends . source
	EndedSet      = "ended"           // TCP connections to reset, as source . destination . ports
	ExternalsSet  = "externals"       // externalIPs, and addresses of other load balancers
	OthersSet     = "others"          // ClusterIPs that another proxy serves
	HostPortsSet  = "host-ports"      // frontends of pods at one address of this node

	ServiceRangesSet       = "service-ranges"       // the ServiceCIDRs of the cluster
	NodePortRangesSet      = "nodeport-ranges"      // where addresses of this node have NodePorts
	RestrictedNodePortsSet = "restricted-nodeports" // NodePorts that are only for some sources
	NodePortSourcesSet     = "nodeport-sources"     // those NodePorts . source
)

// MaxClients is how many clients of Services with affinity a node remembers, by family and kind of frontend. One takes
// some 100 bytes, and a single SYN makes one: it is no more than a flood may cost. Further clients are not remembered.
const MaxClients = 1 << 18

// MaxEnded is how many directions of connections to reset a node remembers, by family.
const MaxEnded = 1 << 16

// A Phase says when elements of a set are written. Phases order the changes, so that between two batches, and in a cold
// start of many, no packet meets half of a Service: endpoints are there before what leads to them and go after it, and
// what refuses comes last.
type Phase int

// The phases, in their order.
const (
	PhaseEndpoints Phase = iota
	PhaseFrontends
	PhaseAddresses
	PhaseRemoved // what goes, but for that of PhaseFrontends
)

// A Set is a set or map of the table.
type Set struct {
	nfnetlink.Set
	Phase Phase
}

// frontend is the type of address . protocol . port.
func (f family) frontend() nfnetlink.Datatypes {
	return nfnetlink.Datatypes{f.addr, nftables.TypeInetProto, nftables.TypeInetService}
}

// stays is the type of protocol . endpoint: see Pick.sticky.
func (f family) stays() nfnetlink.Datatypes {
	return nfnetlink.Datatypes{nftables.TypeInetProto, f.addr, nftables.TypeInetService}
}

// leads is the type of a Lead as numbers.
func leads() nfnetlink.Datatypes { return nfnetlink.Datatypes{nftables.TypeMark, nftables.TypeMark} }

// LeadSets returns the maps from a Lead as numbers, which a frontend has, to the chain of a pick. They have an element for each chain,
// which comes and goes with it.
func LeadSets() []nfnetlink.Set {
	var out []nfnetlink.Set
	for _, f := range families() {
		for _, p := range Picks() {
			out = append(out, p.leadSet(f))
		}
	}
	return out
}

func (p Pick) leadSet(f family) nfnetlink.Set {
	return nfnetlink.Set{Name: p.leads() + f.digit, Key: leads(), Verdicts: true}
}

// Sets returns all sets and maps of the table but LeadSets.
func Sets() []Set {
	port := nfnetlink.Datatypes{nftables.TypeInetProto, nftables.TypeInetService}
	out := []Set{
		{Set: nfnetlink.Set{Name: OverlaysSet, Key: nfnetlink.Datatypes{nftables.TypeIFName}}},
	}
	for _, f := range families() {
		addr := nfnetlink.Datatypes{f.addr}
		out = append(out,
			Set{Set: nfnetlink.Set{Name: AddressesSet + f.digit, Key: addr}, Phase: PhaseAddresses},
			Set{Set: nfnetlink.Set{Name: NodePortsSet + f.digit, Key: port}, Phase: PhaseAddresses},
			Set{Set: nfnetlink.Set{Name: PingsSet + f.digit, Key: addr, Data: addr}},
			Set{Set: nfnetlink.Set{Name: PodRangesSet + f.digit, Key: addr, Interval: true}},
			Set{Set: nfnetlink.Set{Name: HairpinsSet + f.digit, Key: nfnetlink.Datatypes{f.addr, f.addr}}},
			Set{Set: nfnetlink.Set{Name: EmptySet + f.digit, Key: f.frontend()}, Phase: PhaseAddresses},
			Set{Set: nfnetlink.Set{Name: RestrictedSet + f.digit, Key: f.frontend()}},
			Set{Set: nfnetlink.Set{Name: SourcesSet + f.digit, Key: append(f.frontend(), f.addr), Interval: true}},
			Set{Set: nfnetlink.Set{Name: ExternalsSet + f.digit, Key: addr}},
			Set{Set: nfnetlink.Set{Name: OthersSet + f.digit, Key: addr}},
			Set{Set: nfnetlink.Set{Name: HostPortsSet + f.digit, Key: f.frontend()}, Phase: PhaseAddresses},
			Set{Set: nfnetlink.Set{Name: ServiceRangesSet + f.digit, Key: addr, Interval: true}, Phase: PhaseAddresses},
			Set{Set: nfnetlink.Set{Name: NodePortRangesSet + f.digit, Key: addr, Interval: true}},
			Set{Set: nfnetlink.Set{Name: EndedSet + f.digit, Key: nfnetlink.Datatypes{f.addr, f.addr, nftables.TypeInetService, nftables.TypeInetService},
				Dynamic: true, Room: MaxEnded}},
			Set{Set: nfnetlink.Set{Name: RestrictedNodePortsSet + f.digit, Key: port}},
			Set{Set: nfnetlink.Set{Name: NodePortSourcesSet + f.digit, Key: append(append(nfnetlink.Datatypes{}, port...), f.addr), Interval: true}})
		for _, p := range Picks() {
			frontend := port
			if !p.NodePort {
				frontend = f.frontend()
			}
			index := append(append(nfnetlink.Datatypes{}, frontend...), nftables.TypeMark)
			out = append(out,
				Set{Set: nfnetlink.Set{Name: p.Frontends + f.digit, Key: frontend, Data: append(leads(), nftables.TypeMark), Words: p.words(f)}, Phase: PhaseFrontends},
				Set{Set: nfnetlink.Set{Name: p.Endpoints + f.digit, Key: index, Data: nfnetlink.Datatypes{f.addr, nftables.TypeInetService}}},
				Set{Set: nfnetlink.Set{Name: p.stays + f.digit, Key: index, Data: f.stays()}},
				Set{Set: nfnetlink.Set{Name: p.members + f.digit, Key: append(nfnetlink.Datatypes{f.addr, nftables.TypeInetService}, frontend...)}})
			if !p.Inside {
				out = append(out, Set{Set: nfnetlink.Set{Name: p.Affinity + f.digit, Key: append(append(nfnetlink.Datatypes{}, frontend...), f.addr),
					Data: f.stays(), Dynamic: true, Room: MaxClients}})
			}
		}
	}
	return out
}
