// Package check says whether a machine is fit to be a node, and what to do where it is not.
//
//	/proc, /sys, netlink ── Read ──> Facts ── Build ──> []Finding: severity, what was seen, remedy
//	Snapshot (an agent) ── ClusterOf ─┘
//	peers ── Probe ───────────────────┘
//
// Build is pure. Read and Probe change nothing on the machine: what has to be tried is tried in a network namespace of
// its own, which ends with the test.
package check
