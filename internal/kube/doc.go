// Package kube brings the cluster in: it reads Kubernetes objects and hands out a model.Snapshot for each state
// of the world. It is the only package that knows where objects come from.
//
//	manifests/*.yaml ──┐
//	                   ├─ decode ──> objects ── assemble ──> *model.Snapshot ──> handler
//	state/*.yaml ──────┘
//
// In file mode the manifests folder is written by people and the state folder by Hythe's processes and the lab,
// one writer per file, by rename. An object in the state folder replaces the one of the same kind, namespace and
// name in the manifests folder: so a Service gets its ClusterIP without a change to what a person wrote.
package kube
