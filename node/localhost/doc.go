// Package localhost serves NodePorts at 127.0.0.1 and ::1 of this node.
//
//	proxy.State ── Build ──> State: addresses and ports, and their endpoints ── Server.Set ──> Server.Run: listeners
//
//	process of this node ──> 127.0.0.1:30080, a listener of the agent ──> 10.244.2.2:8080, a connection of the agent
//
// The tables of the kernel cannot do it as well: a packet from a loopback address leaves by no other interface unless
// route_localnet is on, which opens what listens there to the network (CVE-2020-8558), and IPv6 has no such thing. So the
// agent carries the bytes, as KEP-6032 has it. An endpoint sees an address of the node, and connections last for as long as
// the agent. What the agent carries at once is bounded: it is for the node's own processes, such as a container runtime
// that pulls images from a registry in the cluster.
//
// A port without endpoints has no listener, so that connections are refused at once.
package localhost
