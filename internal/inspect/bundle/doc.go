// Package bundle collects what somebody needs who helps with a problem, without secrets.
//
//	each process: /inspect, /debug, /metrics, /readyz ─┐
//	hythe get of all kinds, hythe check ───────────────┼─> Scrub ──> FILE.tar.gz
//	this machine: kernel, version; a lab: its logs ────┘
//
// Manifests, Secrets, environments, command lines and Envoy's whole configuration are never read. What is read holds no
// secrets by itself; Scrub is the second lock, for what others write into logs and messages.
package bundle
