// Package lab is a small cluster on one machine, to show and to test Hythe: hosts are network namespaces (package topology),
// Kubernetes is a folder of manifests and a few controllers (package cluster), containers are processes (package kubelet).
// Hythe itself is the real thing.
//
//	hythe lab up ── starts ──> hythe lab serve (Supervisor) ──> hythe controller, hythe node, hythe gateway, pods
//	hythe lab status, demo ── lab.sock ──┘         │
//	                                               └── state/{nodes,services,endpointslices,fill}.yaml
//
// With the API as the source (SourceAPI), the same objects are written to a kube-apiserver on the control machine instead,
// and Hythe reads them there (package apiserver).
//
// The supervisor owns all that; when it dies, "hythe lab down" finds what is left by the network namespaces.
package lab
