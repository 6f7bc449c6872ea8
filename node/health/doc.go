// Package health tells load balancers outside of the cluster which nodes to send to, over HTTP, as kube-proxy does.
//
//	model.Snapshot ── Build ──> State ── Server.Set ──> a listener for each healthCheckNodePort
//
//	balancer ──> any node, tcp 32000  ──> 200, the Service has a ready endpoint on this node; 503, it has none
//	balancer ──> any node, tcp 10256  ──> 200, this node takes new connections; 503, it is about to go (/healthz)
//
// A healthCheckNodePort is that of a Service of type LoadBalancer with externalTrafficPolicy Local. Its answer says how many
// endpoints there are, in JSON and in the header X-Load-Balancing-Endpoint-Weight. It counts endpoints that are ready: a node
// whose endpoints only terminate still serves what comes, and asks for no more. New ones count when the kernel has them
// (Server.Applied).
//
// /healthz is for balancers of Services with externalTrafficPolicy Cluster, which may send to each node (KEP-3836). It is off
// unless it is given an address. /livez is the same without what is known of the Node object.
//
// Both are 503 while changes of Services do not come to the kernel for longer than Late.
package health
