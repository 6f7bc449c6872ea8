// Package follow takes one request through the configuration that Envoy has, as Envoy itself would, and says at each
// step what decided it and whether the gateway wants it so.
//
//	dump.Config ─┐
//	             ├─ Follow(Request) ──> listener ─ certificate ─ host ─ route ─ cluster ─ endpoints
//	Want ────────┘                      the hops of package trace, and what Envoy would answer
//
// Follow is pure, and so are Hosts, Routes and Certificates, which compare all of a kind. match.go is Envoy's own
// matching, as far as package xds makes use of it; a test asks a real Envoy the same questions. An error in it shows
// as a trace that says otherwise than curl.
package follow
