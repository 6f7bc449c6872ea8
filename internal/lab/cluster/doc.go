// Package cluster is the lab's Kubernetes: the few controllers that manifests in a folder need to become running pods.
//
//	manifests ── Files ──> Objects ── Complete ──> Services with ClusterIP and NodePort ──> state/services.yaml
//	                          │  └─── Add ──> what the folder lacks, and fills ───────────> state/fill.yaml
//	                          └────── Step(workloads, pods, nodes) ──> pods to start, pods to stop
//	                                  Slices(services, pods) ────────────────────────────> state/endpointslices.yaml
//
// All but Files and the certificates is pure: the pods themselves are package kubelet's.
package cluster
