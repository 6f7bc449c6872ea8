// Package cni attaches pods to the node: the CNI plugin (spec 1.1.0), its addresses, and its installation.
//
//	 pod's namespace                        node's namespace
//	┌───────────────────────────┐          ┌─────────────────────────────────────┐
//	│ eth0 10.244.1.5/32        │   veth   │ hyt0123456789a                      │
//	│ default via 169.254.1.1 ──┼──────────┼── route 10.244.1.5/32 dev hyt…      │
//	│ neigh 169.254.1.1 (fixed) │          │   neigh 10.244.1.5 (fixed)          │
//	└───────────────────────────┘          │   rp_filter=1: no other source      │
//	                                       └─────────────────────────────────────┘
//
// There is no bridge and no ARP: both ends know each other's hardware address, which is made from the container's
// id. Build is pure and says what the pair should have; package link makes it so. Leases are the addresses given
// out, in one file that belongs to one boot of the machine.
//
// The agent calls Install when overlay and Service datapath are in the kernel. The configuration list that it
// writes last is what makes the container runtime call the plugin.
package cni
