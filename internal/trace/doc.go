// Package trace says why a request arrives, or why it does not.
//
// It follows one request hop by hop. Each hop is read back from where it runs: Envoy's configuration, the kernel's
// tables, the wire. Next to what is there stands what Build wants, if it differs, and the object that decided it.
//
//	asked.Parse ──> Question ──> road.Ask ──> /inspect of nodes and gateways ──> Evidence ──> Build ──> Trace ──> WriteText
//	                                 └── Road: where next, by what is known so far ──────────┘
//	road.Live ──> a marked request ──> conntrack of nodes, access log of Envoy ──> LiveEvidence ──> BuildLive ──> Trace
//
// This package is pure. The questions and answers are types of package asked; package road knows where the request goes
// next, whom to ask about it, and asks; package answer makes a node's answers, internal/envoy/follow those about Envoy.
package trace
