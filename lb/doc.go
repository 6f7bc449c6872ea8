// Package lb gives LoadBalancer Services their addresses (VIPs) and decides which node owns each of them.
//
//	pools, Services, claims ── Build ──> AddressClaims, Service and Ingress status     (controller)
//
//	AddressClaims ── VIPs ─┐
//	lb/members: who lives ─┼─ Elect ──> keep, take, resume, release ──> lb/arp          (every node)
//	lb/probe: who can serve┘                                            lb/speaker joins them
//
// An AddressClaim is the only thing that nodes believe: neither Service status nor externalIPs make a VIP. Both
// functions are pure. Build keeps what is claimed; Elect keeps what is owned: a node that comes back takes
// nothing.
package lb
