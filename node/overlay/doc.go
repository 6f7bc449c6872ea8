// Package overlay joins the pod networks of all nodes by VXLAN (RFC 7348).
//
//	pod 10.244.1.5                                                      pod 10.244.2.7
//	   │ route 10.244.2.0/24 via 10.244.2.0 dev hythe.vxlan                │
//	   │ neigh 10.244.2.0 lladdr MAC of node b                             │
//	   │ fdb   MAC of node b dst 192.0.2.12                                │
//	node a 192.0.2.11 ═══════ UDP 4789, VNI 72 ═══════ node b 192.0.2.12 ──┘
//
// Each node's end has the network address of the node's pod range and a MAC made from the node's name. So every
// node computes every entry from the Node objects alone: nothing is learned, exchanged or flooded. Build does
// that; link.Links makes it so and keeps it so.
package overlay
