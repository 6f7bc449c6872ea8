// Package live takes note of requests that somebody marked, so that their real road can be told afterwards.
//
//	client ── X-Hythe-Trace: 5f0c… ──> Envoy ── access log over gRPC, marked requests only ──> Server ──> Log
//	                                                                                               │
//	hythe trace --live ── /inspect/live?id=5f0c… ──────────────────────────────────────────────────┘
//
// The header is no secret and no right: anybody can send it. So what is kept is little (Log), what is read is slow
// (Server), and Envoy throws away what does not fit. Queries, cookies and other headers are not kept.
package live
