// Command e2e runs Kubernetes' own tests against the real cluster of conformance/rig, from outside of it.
//
//	sets.txt ─> which belong to the set ────────┐
//	e2e.test --list-tests ─> which are missing ─┤
//	results/e2e.jsonl ──────────────────────────┴─> e2e.test, one test each, in the client's namespace
//	       ^                                              │ report.json
//	       └──────────── one line per test ───────────────┴─> results/conformance.md, network.md, loadbalancer.md, dualstack.md
//
// sets.txt says to which set a test of [sig-network] belongs, why others are left out, and why one fails: a line that matches no
// test any more is an error. Tests run BESIDE each other at a time, as upstream runs them too, but for those that sets.txt
// wants alone; with six nodes there are three zones of two, which tests of topology ask for.
//
// Each test is a process of its own, so a run may be stopped at any time: the next one goes on with what is missing. A
// line is kept for the flavour of the cluster and the commit; results of another commit count as missing, those of the
// peer (kube-proxy and the reference plugins) only for another Kubernetes. Each table has a column for each of the two, from the newest
// line of each test.
package main
