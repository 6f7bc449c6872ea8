// Package apiserver runs a real Kubernetes API for the lab and for tests: an etcd and a kube-apiserver that
// scripts/apiserver.sh built, with an authority that signs who may ask.
//
//	Authority ── Kubeconfig(user) ──> hythe controller, gateway, node: users bound to the roles of charts/hythe
//	Server.Etcd, Server.API ── command lines ──> who runs them (the lab's Supervisor, kubetest)
//	Store.Put(part, objects) ── apply, delete ──> the API ── watch ──> Store.Snapshot
//
// Kubernetes' own controllers do not run: who uses this writes Nodes and EndpointSlices itself.
package apiserver
