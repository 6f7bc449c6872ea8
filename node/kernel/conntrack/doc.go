// Package conntrack ends UDP flows that lead where their Service does not lead any more. A client that sends from one port for ever (a resolver, a phone) would else be sent to an endpoint that
// is gone, since rules of translation are asked for the first packet alone, and each further packet keeps the entry
// alive.
//
// TCP connections are reset where the Service wants it; else their peers notice in their own time. What either end sends
// after its entry was deleted is answered with a reset (nft.Table.End), and both are made to send: a probe that fits no
// connection is answered with an acknowledgement (RFC 9293 section 3.10.7.4). So a client that waits for an answer learns
// of it too. A connection by a targetPort that its Service had before, or by a frontend that it lost, goes on for as long as its endpoint is
// there: how it came is remembered until then.
//
//	proxy.State ── Set ──> Build: which frontends changed ──> Run: list their entries ──> judge ──> (TCP: refuse) ──> delete ──> (TCP: probe)
//	                                                            again a second later: what a packet under way made
//
// The kernel filters the list by protocol, and by destination (IPv4 only) and port where few frontends changed, so that only
// entries in question are copied. One entry at a time is deleted, by its tuple and its number: never another one that
// took its place.
//
// The first Set compares all there is with what should be: an agent that was away catches up.
package conntrack
