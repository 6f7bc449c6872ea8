// Package proxy says what the Service datapath of one node has to hold: which address and port goes to which
// endpoints. It replaces kube-proxy.
//
//	model.Snapshot ── Build ──> State ── kernel/nft.Table.Set ──> elements of maps in nftables
//
//	 client ──> 203.0.113.10 tcp 80 ──┐  Frontend                Backends
//	 pod ─────> 10.96.0.10   tcp 80 ──┼─────────────> 10.244.1.2:8080, 10.244.2.2:8080
//	 client ──> any node    tcp 30080 ┤
//	 client ──> this node   tcp 8080  ┘  (a pod's hostPort: its one pod, on this node)
//
// Build is pure and works Service by Service. What each kind of frontend is given:
//
//   - ClusterIP: all usable endpoints; with internalTrafficPolicy Local those of this node. Where only other nodes have
//     some, packets are dropped.
//   - NodePort, VIP and external address: all usable endpoints; with externalTrafficPolicy Local those of this node for
//     sources outside, and all of them for pods and for the node itself, as kube-proxy does.
//
// Where all usable endpoints have hints for zones or nodes, "all" are those for this node (model.Near): that is how
// trafficDistribution comes here.
//
// A frontend without endpoints is refused at once. The exception is a policy Local while other nodes have endpoints. With
// externalTrafficPolicy packets from outside are then dropped without an answer, for a balancer that sends here is late,
// and a reset would tell the client that the Service is gone.
//
// A VIP is only for spec.loadBalancerSourceRanges, of which each family is judged alone: a list without a usable range
// of the VIP's family lets nobody in. They hold for pods too, and not for ClusterIP; for NodePorts by a setting.
//
// Of two Services that claim one frontend the older one has it.
//
// A host port of a pod is a frontend too: at an address of this node, or at all of them and at 127.0.0.1. It is given after
// the Services, whose frontends it does not take.
//
// VIPs come from AddressClaims alone: nothing that a tenant can write (status, externalIPs) makes an address ours. Both are
// served by settings, and then only as far as the address is nobody else's (external, lent).
//
// What goes to a ServiceCIDR and to no Service is dropped (serviceRanges). NodePorts are at the addresses of the node that a
// setting says, which are ranges: the kernel knows which addresses the node has.
package proxy
