// Package topology makes the lab's machines and cables: network namespaces joined by veth pairs.
//
//	inet ───────────── router ───────────────── lan (a bridge)
//	client              198.51.100.1             │      │      │      │
//	198.51.100.10       203.0.113.1            node1  node2  node3  control
//	                                           .101   .102   .103   .100      203.0.113.0/24
//
// The bridge stands in a namespace of its own, with bridge-nf-call-iptables off: the frames of the LAN would otherwise
// be tracked a second time. All namespaces have names under /run/netns, so that "ip netns" shows them; nothing is made in
// the namespace of the machine itself. Several labs may stand side by side: each but the first has a name, which ends the
// names of its namespaces.
package topology
