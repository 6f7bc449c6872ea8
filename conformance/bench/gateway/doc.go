// Command gateway measures the gateway: a real kube-apiserver, a real hythe gateway and a real Envoy, in a network namespace of its
// own, in which the addresses of all pods are local.
//
//	benchmark ── writes ──> kube-apiserver ──> hythe gateway ──(spy)──> Envoy ──> pods, in the benchmark
//	    └───────────────────────── requests ────────────────────────────┘
//
// The benchmarks:
//
//   - lost: clients of HTTP/1.1, HTTP/1.1 with TLS, HTTP/2 with TLS and gRPC ask at a steady rate, half of the requests POST, while ten changes a
//     second are made. The changes take turns: the backend Service of an Ingress, its port, the number of a Service's port, targetPort,
//     headers, a setting of the backend, certificates, new hosts with and without a certificate, and pods that are replaced. A pod serves for
//     five seconds after it begins to terminate, and ends as a good server does. Clients never ask twice (but gRPC may send again what no
//     server has seen, as its own rules say); three in four keep their connection for ever, the fourth connects anew every 50 requests. Whatever
//     is no answer 200, a connection that is cut included, is lost, and is an error: it is told with what changed before it, and Envoy's
//     line of it in the access log. A new host without TLS is asked every 2 ms on one connection, one with TLS every 10 ms on new ones.
//   - propagation: a new host among 3,000 that do not change, and among 5,000 of which 20 a second do. The parts are taken from outside: the
//     event is when another watch of the same API has it, and a spy on the gateway's socket sees what is sent and acknowledged. The
//     gateway's own part is from the event until the host is sent, without the time in which Envoy had something to acknowledge.
//     The first 200 is seen every 2 ms by a client.
//   - throughput: h2load with one thread against Hythe's Envoy; the same without the HTTP filters that are there for routes to enable; an Envoy with a
//     static configuration, written by hand for the same job; nginx and HAProxy, where they are installed. All have two workers and lead to
//     one server, an Envoy that answers by itself. Subjects follow each other, each round another one first, and a ratio is one
//     of neighbours in time. Each host has a certificate of its own, and the one in the middle is asked.
//   - scale: what many TLS hosts cost; see package scale. It begins at a gateway.Config, without an API server.
//
// Each figure is a row of results/gateway-bench.jsonl with the commit, the number of values and their spread; what a commit has rows of is
// not measured again, so a run may be stopped at any time. Rows of a part that an error ended are partial, and it is measured again.
// results/gateway-bench.md is made of the newest rows.
package main
