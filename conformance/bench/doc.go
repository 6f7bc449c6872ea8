// Command bench measures the Service datapath beside kube-proxy: the real hythe node and the real kube-proxy, each in a
// network namespace of its own, fed by the same stub of an API server over real HTTP, in turns.
//
//	world ──> stub API server ──HTTP──> hythe node, or kube-proxy ──netlink──> kernel of the namespace
//	              │ Put, Delete                                                  │ generation, elements,
//	              └── time of the event              time in the kernel ─────────┘ notifications; packets
//
// The benchmarks:
//
//   - full: all Services for the first time, from the start of the process until the last transaction after which the
//     kernel has all of them (seen by the generation of nftables, which is asked for every 2 ms and takes no lock), and from
//     objects to kernel: of kube-proxy what its metric of the first full sync says, of Hythe Build and Set in this process.
//     Then Hythe is started again: one transaction takes the table over, and nothing is written.
//   - update: one endpoint of one Service is replaced by an address that was nowhere before, or one Service gets another port.
//     The time is from the event, when it is written to the watch, until the kernel's notification of an element with that
//     address or port. Sizes take turns.
//   - traffic: three-packet handshakes, requests of 64 bytes and bulk over one connection, from a pod through a node to
//     a pod, by a ClusterIP. Handshakes of the subjects follow each other, each time another one first: "more than hythe" and "of hythe's"
//     are differences and ratios of such pairs.
//   - alive: 10,000 connections by Services, while the agent is restarted, replaced by a version with other rules, and other
//     Services change. After each, each connection has to give back a word.
//   - churn: 250,000 endpoints, of which 500 are replaced each second: the lag of each from the time when it is due until the
//     kernel has it, the agent's memory and processor time.
//   - churn-api: the same in a real etcd and kube-apiserver at 50 a second, which run on the same machine. The lag begins before
//     the request; a part of it is the API's own, as its answers show. Left out where these programs are not built.
//
// Each figure is a row of results/services-bench.jsonl with the commit, the number of values and their spread; what a
// commit has rows of is not measured again, so a run may be stopped at any time. Each benchmark has a limit (main.go), and so
// has the whole; an error in one is told at once and at the end, and the next one goes on. What was measured until then is
// kept as partial, and measured again by the next run. results/services-bench.md is made of the newest rows.
// kube-proxy is never run with more than 10,000 Services: at 44,000 it takes a quarter of an hour, and the kernel locks up.
package main
