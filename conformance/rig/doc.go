// The rig is a real Kubernetes cluster on one Linux machine: etcd, API server, controller manager, scheduler, CoreDNS, and
// nodes with kubelet and containerd, each a machine of its own as far as a kernel can be shared.
//
//	198.51.100.0/24                         203.0.113.0/24, the LAN: a bridge in a namespace of its own
//	client ──────────────── router ─────────────┬──────────┬──────────┬──────────┬──────────┐
//	.10                   .1      .1          node1      node2      node3     control   the machine itself
//	                                          .101       .102       .103    .100, .99   .126, hc-host
//	zones:                                      a          b          a (node4: b, node5 and node6: c)
//	VIPs: .10 to .59        pods: 10.244.0.0/16        Services: 10.96.0.0/16, DNS 10.96.0.10
//
// With DUAL=1 all have addresses of IPv6, too: 2001:db8:113::/64 on the LAN (node1 is ::101, the router ::1), fd00:10:244::/56 for
// pods, fd00:10:96::/112 for Services; VIPs stay IPv4.
//
// It comes in three flavours: "hythe", where Hythe is all of the network; "peer", the reference CNI plugins and kube-proxy
// without Hythe; and "guest", these with Hythe as gateway and load balancer. The peer tells the faults of the machine from
// those of Hythe.
//
//	make cluster NODES=3                       FLAVOUR=peer, BARE=1 for nodes without network, APISERVERS=2, DUAL=1
//	bin/kubectl get pods -A                    bin/helm
//	bin/rig exec client -- curl http://203.0.113.10/
//	bin/rig exec node1 -- nft list ruleset     what the node sees: its /run, /etc, processes
//	bin/rig kill node2/kubelet                 stays dead until: bin/rig restart node2/kubelet
//	bin/rig kill node2                         cuts the power
//	bin/rig reboot node1 node2 node3           all at once; other boot ids, empty /run, no interfaces
//	bin/rig add-node; bin/rig remove-node node3
//	bin/rig readdress node2 203.0.113.112      another address, from one moment to the next
//	bin/rig renumber node2                     another pod CIDR: the Node is deleted and registers anew
//	bin/rig install                            images and chart as they are now
//	make cluster-down
//
// Of two API servers Hythe is given both, kube-apiserver first; kubelets and the rest of the control plane ask the other one,
// kube-apiserver-2, so that the first may die.
//
// All state is in /var/tmp/hythe-cluster (--dir, CLUSTER_DIR): cluster.json, kubeconfig, pki, config, logs, pids, and a folder
// for each node with what survives its reboot. Daemons are not started again when they die. One cluster at a time: the
// addresses and the names of namespaces are fixed.
//
// Package cluster says what all of it consists of, as values and text; host makes machines of namespaces; image writes the
// images; this package puts them in order. Programs come from scripts/kubernetes.sh, by kubectl the rig asks the API server.
package main
