// Package services is one suite of cases about Services: Kubernetes objects, packets, and what becomes of each packet. They
// are data (testdata/*.txtar), and run as real packets against Hythe and against the real kube-proxy, in the same lab.
//
//	                  LAN 192.0.2.0/24, a bridge in a namespace of its own
//	      ┌──────────────────┬─────────────────────────┐
//	client .100, .101   node1 .11, zone east       node2 .12, zone west
//	                         │ the proxy under test      │ no proxy
//	                    pods a b c 10.244.1.2–4     pods d e 10.244.2.2–3
//	                         └──────── VXLAN ────────────┘
//
// Whatever the proxy, the overlay is that of two agents of Hythe. Each pod, and each node and the client too, answers on TCP
// and UDP ports 8080 and 8081 with its name, the port and the address that it sees. VIPs (203.0.113.0/24), external addresses
// (198.51.100.0/24) and ClusterIPs (10.96.0.0/16) have a route to node1 everywhere.
//
// A case file is a txtar archive. Its steps are applied one after the other: "objects.yaml" and "asks", then
// "2/objects.yaml" and "2/asks", and so on; the objects of a step take the place of all of the file before. A line of asks is
//
//	FROM[:PORT] PROTOCOL ADDRESS:PORT  WANT  [asks=N] [pause=DURATION] [family=4|6]
//
// FROM is a name of the picture, PORT a fixed source port, PROTOCOL tcp, udp, http or ping, or open and still: a TCP connection
// that open makes, and that still finds alive in a later step. WANT is one of:
//
//	a=client d=node1     each of these answers at some time, nobody else does, and they see these addresses. "a:8081=client" is
//	                     another port than 8080, "node1" any address of node1
//	one a=client b=client   one of them answers, always the same
//	refused, dropped     at once by a reset or an ICMP error; not at all
//	200 2                the status of the answer by HTTP, and how many local endpoints it tells of
//	reply                to a ping
//
// Lines below it, indented, are differences that were decided: "hythe WANT DECISION" and "kube-proxy WANT DECISION", where
// decisions.txt has a paragraph for each name.
//
// Each file is run twice. In the second run, each IPv4 address a.b.c.d is fd00::a.b.c.d, a prefix of it is 96 bits longer,
// IPv4 is IPv6 and each NodePort (30000 to 31399) is 1400 higher (Six). "families: 4" at the begin of a file leaves that out.
package services
