// Package trace says why a request arrives, or why it does not.
//
// It follows one request hop by hop. Each hop is read back from where it runs: Envoy's configuration, the kernel's
// tables, the wire. Next to what is there stands what Build wants, if it differs, and the object that decided it.
//
//	Parse ──> Question ──> Ask ──> /inspect of nodes and gateways ──> Evidence ──> Build ──> Trace ──> WriteText
//	                        └── road: where next, by what is known so far ──────────┘
//	Live ──> a marked request ──> conntrack of nodes, access log of Envoy ──> LiveEvidence ──> BuildLive ──> Trace
//
// Build and BuildLive are pure, and so is road, by which Ask knows whom to ask next. The answers of a node are made in
// service.go, speaker.go and kernel.go, those about Envoy in internal/envoy/follow.
package trace
