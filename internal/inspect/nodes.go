package inspect

import (
	"net/netip"
	"time"

	"hythe.dev/hythe/api/v1alpha1"
)

// A ServiceAnswer is one Service in the datapath of a node. /inspect/services of a node answers []ServiceAnswer, by
// namespace and name.
type ServiceAnswer struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Type is spec.type, or "Headless".
	Type string `json:"type"`
	// Since is when the Service was created; zero where the manifest does not say.
	Since time.Time    `json:"since,omitzero"`
	VIPs  []netip.Addr `json:"vips,omitempty"`
	// Ready counts the endpoints that new connections may go to, of all ports; Total those that there are.
	Ready int `json:"ready"`
	Total int `json:"total"`
	// Frontends are by address, protocol and port. A headless Service has none.
	Frontends []FrontendAnswer `json:"frontends,omitempty"`
}

// A FrontendAnswer is where a Service is reached, with the number of endpoints that Build wants and that the kernel has.
type FrontendAnswer struct {
	// Address is unspecified for a NodePort.
	Address  netip.Addr `json:"address"`
	Protocol string     `json:"protocol"`
	Port     uint16     `json:"port"`
	// Wanted and Read are for sources inside of the cluster, Outside for all others.
	Wanted        int `json:"wanted"`
	Read          int `json:"read"`
	OutsideWanted int `json:"outsideWanted"`
	OutsideRead   int `json:"outsideRead"`
	// Differs is in what the kernel is not as Build wants it, in words; empty if it is.
	Differs string `json:"differs,omitempty"`
}

// A VIPAnswer is what one node knows of a VIP. /inspect/vips of a node answers []VIPAnswer, by address.
type VIPAnswer struct {
	Address  netip.Addr `json:"address"`
	Pool     string     `json:"pool"`
	Services []string   `json:"services"` // "namespace/name"
	Announce []string   `json:"announce,omitempty"`
	// Since is when the address was claimed; zero where the claim does not say.
	Since time.Time `json:"since,omitzero"`
	// Watched is false on a node that has no part in it: without a heartbeat key, or before it heard of the claim.
	Watched bool `json:"watched"`
	// Owned says that this node answers for it, Generation in which generation, and OwnedSince from when on.
	Owned      bool      `json:"owned"`
	Generation uint64    `json:"generation"`
	OwnedSince time.Time `json:"ownedSince,omitzero"`
	// Owner is who owns it, as far as this node has heard.
	Owner string `json:"owner,omitempty"`
	// Local says that only nodes with a working backend may own it; Healthy, that this node has one.
	Local   bool `json:"local"`
	Healthy bool `json:"healthy"`
	// State is what this node is doing about it: "owned", "asking", "blocked", "standby".
	State string `json:"state"`
	// Conflict is the Problem that this node has with it, in words.
	Conflict string `json:"conflict,omitempty"`
}

// A DropAnswer is what a node's datapath dropped or refused for a reason, since its table was made. /inspect/drops of a
// node answers []DropAnswer, by reason.
type DropAnswer struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// A NodeAnswer is one node. /inspect/nodes of a node answers []NodeAnswer: all that it knows, and of itself more.
type NodeAnswer struct {
	Name      string         `json:"name"`
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs,omitempty"`
	// Heard says whether heartbeats of it come, Held that it said it would restart.
	Heard bool `json:"heard"`
	Held  bool `json:"held,omitempty"`
	// Self marks the node that answers; what follows is known of it alone.
	Self bool `json:"self,omitempty"`
	// Ready is empty, or says what is missing.
	NotReady string `json:"notReady,omitempty"`
	// VIPs are those that it owns.
	VIPs []netip.Addr `json:"vips,omitempty"`
	// PodMTU is that of new pods, in bytes; 0 before the plugin is installed.
	PodMTU int `json:"podMTU,omitempty"`
	// Kernel is the release of its kernel.
	Kernel string `json:"kernel,omitempty"`
}

// A ProblemAnswer is one Problem. /inspect/problems of each process answers []ProblemAnswer, by object.
type ProblemAnswer = v1alpha1.ReportedProblem
