// Package kubetest runs a real Kubernetes API for tests: etcd and kube-apiserver on loopback, as
// scripts/apiserver.sh builds them. Nothing else of a cluster runs: no controllers, no nodes.
//
//	test ── TLS, client certificate ──> kube-apiserver ──> etcd ──> folder of the test
package kubetest
