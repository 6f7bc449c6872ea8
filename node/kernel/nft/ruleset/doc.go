// Package ruleset is what the table "inet hythe" consists of, and how a proxy.State becomes its elements. It is pure.
//
// The table is a skeleton of rules that never changes, and maps whose elements say everything about Services:
//
//	packet ── raw-prerouting ──> spoofed: drop what a pod sends from an address that is not its own
//	packet ── nat-prerouting, nat-output ──> ended: reset what belongs to a connection in ended4, whose endpoint is gone
//	packet ── nat-prerouting ──> services4 ── from a pod ──┐
//	packet ── nat-output ──────────────────────────────────┴──> inside4
//
//	services4, inside4:    drop what spec.loadBalancerSourceRanges does not let in
//	inside4 only:          inside-frontends4   address . protocol . port : lead
//	services4, inside4:    frontends4          address . protocol . port : lead
//	to this node ──> this-node4, this-node-inside4: inside-nodeports4, nodeports4   protocol . port : lead
//
//	                       picks4              lead : goto pick, one element for each chain
//
//	                                                        │ goto
//	                 one chain per number of endpoints:     v
//	                   pick4-3:  dnat to  address . protocol . port . random mod 3  map @endpoints4
//
//	                   pick4-3-10800: the same, and remembers frontend . source in @affinity4 for 10800 seconds
//	                   pick4-source-251: the same, with a hash of the source in the place of random mod 3
//
//	after that ── filter-prerouting, filter-output ──> unserved: refuse what is still addressed to a Service,
//	                                                     drop what is addressed to none and in service-ranges4
//	at the end ── nat-postrouting: masquerade what would not find its way back
//
// Most connections to a Service are to a ClusterIP, so that is looked up first, and each family has chains of its own. What all
// packets pass (raw-prerouting, raw-output, filter-*) is a few expressions and a jump.
//
// Each map is there for IPv4 (4) and IPv6 (6). The inside maps hold only what differs for pods and the node itself
// (externalTrafficPolicy Local); all else falls through to the maps for everybody.
//
// An endpoint is found by the frontend and its index. So a change of a Service changes the elements of its own
// frontends and nothing else; a chain pick4-N is made with the first frontend that has N endpoints, and stays. A frontend has a
// number for its chain and no verdict: the kernel would go through all frontends for each new one. A
// removed endpoint's index is taken by the last one.
//
// Elements say too what is in ranges: pods, Services, where NodePorts are. A NodePort needs a destination in nodeport-ranges4
// that is this node's.
//
// Where a hash chooses, the indexes are slots (proxy.Slots), many for each endpoint: nodes that know the same endpoints
// hold the same slots, hash by the same seed, and so choose the same.
//
// What is refused or dropped is counted by reason (Reasons): the counters are objects of the table, so that changes of
// Services keep them.
//
// Encode makes elements of a State, Decode makes frontends of elements. Skeleton makes the messages of all else, and
// Recognise says whether the rules in a kernel are those.
package ruleset
