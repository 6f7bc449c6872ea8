package readback

import (
	"net/netip"
	"time"

	"hythe.dev/hythe/node/proxy"
)

// A Query is the first packet of a connection, as a node meets it.
type Query struct {
	// From is the source. The zero Addr is this node itself.
	From netip.Addr `json:"from,omitzero"`
	To   netip.Addr `json:"to"`
	// Ping asks about an echo request; Protocol and Port are then without meaning.
	Ping     bool           `json:"ping,omitempty"`
	Protocol proxy.Protocol `json:"protocol,omitempty"`
	Port     uint16         `json:"port,omitempty"`
	// FromPort is the source port, 0 if it is not known.
	FromPort uint16 `json:"fromPort,omitempty"`
}

// The kinds of sources. They are those that the rules tell apart.
const (
	FromNode    = "node"    // this node itself
	FromPod     = "pod"     // an address in a pod range, of this node or another one
	FromOutside = "outside" // everything else
)

// The verdicts on a connection.
const (
	// Forwarded goes to one of the Endpoints.
	Forwarded = "forwarded"
	// Refused is answered with a TCP reset or an ICMP error.
	Refused = "refused"
	// Dropped gets no answer.
	Dropped = "dropped"
	// Answered is a ping that this node answers for a VIP.
	Answered = "answered"
	// NotService is addressed to nothing that is a Service's: the table leaves it alone.
	NotService = "not a Service"
)

// A Found is what the rules in the kernel do with a connection now. It is read from the sets and maps themselves, and
// not from what this process believes to have written.
type Found struct {
	Query   Query  `json:"query"`
	Source  string `json:"source"`  // FromNode, FromPod, FromOutside
	Verdict string `json:"verdict"` // Forwarded, Refused, Dropped, Answered, NotService
	// Reason is under which of ruleset.Reasons such a packet is counted, empty where it is neither refused nor dropped.
	Reason string `json:"reason,omitempty"`
	// Why says in words which element decided it.
	Why string `json:"why"`
	// Table is false where the table is not there at all.
	Table bool `json:"table"`
	// Address says that To is the own address of a Service, so that its other ports are refused; NodePort, that To is
	// this node's and the port is a NodePort.
	Address  bool `json:"address"`
	NodePort bool `json:"nodePort"`
	// Inside says that the list for sources in the cluster decided, since it differs.
	Inside bool `json:"inside"`
	// Outside and Within are the two lists of the frontend; Within is absent where they are the same.
	Outside *FoundBackends `json:"outside,omitempty"`
	Within  *FoundBackends `json:"within,omitempty"`
	// Restricted says that only some sources may come, and Sources which.
	Restricted bool           `json:"restricted,omitempty"`
	Sources    []netip.Prefix `json:"sources,omitempty"`
	// Endpoints are those of the list that decided, with the way that each would be reached.
	Endpoints []FoundEndpoint `json:"endpoints,omitempty"`
	// AnsweredBy is the address of this node that answers a ping.
	AnsweredBy netip.Addr `json:"answeredBy,omitzero"`
}

// FoundBackends is an endpoint list in the kernel.
type FoundBackends struct {
	// Map has the frontend, Element is its key there as nft shows it, and Chain where it leads: "pick4-3", or ruleset.NoLocalEndpoint.
	Map     string `json:"map"`
	Element string `json:"element"`
	Chain   string `json:"chain"`
	// Endpoints are in the order of their index; where a hash chooses one of many slots, each is there once.
	Endpoints []netip.AddrPort `json:"endpoints"`
	// Affinity is how long a client stays with its endpoint, 0 for not at all; Stays is where the client of the Query
	// was last, the zero AddrPort if nothing is known. It counts only while it is one of Endpoints.
	Affinity time.Duration  `json:"affinity,omitempty"`
	Stays    netip.AddrPort `json:"stays,omitzero"`
	// Choice is how one of Endpoints is chosen, empty for at random. Chosen is the one that the source of the Query gets where
	// a hash of it says so, the zero AddrPort where it depends on a port that the Query does not name. Stays comes before.
	Choice string         `json:"choice,omitempty"`
	Chosen netip.AddrPort `json:"chosen,omitzero"`
	// Missing are indexes that Chain picks and for which there is no endpoint: such connections are refused. It is
	// always empty unless somebody else changed the table.
	Missing []int `json:"missing,omitempty"`
}

// A FoundEndpoint is an endpoint and how connections get there.
type FoundEndpoint struct {
	Index   int            `json:"index"`
	Address netip.AddrPort `json:"address"`
	// Device is the one that leads there, empty if none does.
	Device string `json:"device,omitempty"`
	// Masquerade says that the endpoint sees an address of this node in place of From, and Rule by which rule.
	Masquerade bool   `json:"masquerade"`
	Rule       string `json:"rule,omitempty"`
}

// A Summary is what the kernel holds of the table, counted.
type Summary struct {
	// Present says that there is a table inet hythe.
	Present bool `json:"present"`
	// Owned says that a process owns it, so that nobody else can change it; Owner is that process's netlink port, which
	// is mostly its process ID. Persist says that the table survives its owner's end.
	Owned   bool   `json:"owned"`
	Owner   uint32 `json:"owner,omitempty"`
	Persist bool   `json:"persist"`
	// Skeleton is the version that the table's comment names, Current says that it is this binary's.
	Skeleton string `json:"skeleton,omitempty"`
	Current  bool   `json:"current"`
	// Whole says that chains and rules are those of this binary's skeleton: none is missing, foreign or in another
	// place.
	Whole bool `json:"whole"`
	// Chains is the number of chains that pick one of so many endpoints.
	Chains int `json:"chains"`
	// Elements are the numbers of elements, by set.
	Elements map[string]int `json:"elements,omitempty"`
}

// A Drop is how many packets the table refused or dropped for one reason since the table was written: changes of
// Services keep the numbers, another version of the skeleton begins at zero.
type Drop struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
