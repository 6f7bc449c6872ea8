package asked

import (
	"net/netip"
	"time"

	"hythe.dev/hythe/internal/model"
)

// Evidence is all that was read back for a Question. Lists are ordered by node.
type Evidence struct {
	Now time.Time `json:"now"`
	// Processes answered; Silent are the addresses at which nobody did.
	Processes []ProcessEvidence `json:"processes"`
	Silent    []string          `json:"silent,omitempty"`
	// Resolved are the addresses that DNS gives for the URL's host, asked from where the question was asked.
	Resolved     []netip.Addr `json:"resolved,omitempty"`
	ResolveError string       `json:"resolveError,omitempty"`
	// Gateway is the Service that leads to the gateways' Envoys.
	Gateway model.Key             `json:"gateway"`
	Service Answer[ServiceAnswer] `json:"service"`
	// From is the pod that the packets come from, if they do.
	From      *AddrAnswer[PodAnswer]   `json:"from,omitempty"`
	VIPs      []Answer[VIPAnswer]      `json:"vips,omitempty"`
	ARP       []Answer[ARPAnswer]      `json:"arp,omitempty"`
	Frontends []Answer[FrontendAnswer] `json:"frontends,omitempty"`
	Requests  []Answer[RequestAnswer]  `json:"requests,omitempty"`
	// Backends are the Services that Envoys send the request to, as a node knows them.
	Backends []Answer[ServiceAnswer]   `json:"backends,omitempty"`
	Routes   []AddrAnswer[RouteAnswer] `json:"routes,omitempty"`
	Pods     []AddrAnswer[PodAnswer]   `json:"pods,omitempty"`
	Problems []ProblemEvidence         `json:"problems,omitempty"`
}

// ProcessEvidence is one process that answered.
type ProcessEvidence struct {
	Component string    `json:"component"`
	Node      string    `json:"node,omitempty"`
	Version   string    `json:"version"`
	Source    string    `json:"source"`
	Snapshot  time.Time `json:"snapshot,omitzero"`
}

// Name is "node1/gateway", or "controller".
func (p ProcessEvidence) Name() string {
	if p.Node == "" {
		return p.Component
	}
	return p.Node + "/" + p.Component
}

// ProblemEvidence is a Problem that a process reports.
type ProblemEvidence struct {
	Process string          `json:"process"`
	Object  model.ObjectRef `json:"object"`
	Reason  string          `json:"reason"`
	Message string          `json:"message"`
}

// An Answer is what a node said, or why it said nothing.
type Answer[T any] struct {
	Node  string `json:"node"`
	Error string `json:"error,omitempty"`
	Got   T      `json:"got"`
}

// An AddrAnswer is an Answer about an address.
type AddrAnswer[T any] struct {
	Addr netip.AddrPort `json:"addr"`
	Answer[T]
}
