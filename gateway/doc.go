// Package gateway turns a model.Snapshot into a Config: which hosts are served, with which certificate, and which
// path of them goes to which Service port.
//
//	Ingress, IngressClass, Service, Endpoints, Secret ── Build ──> Config ── xds.Build ──> Envoy resources
//
// Build is pure. What an Ingress asks for and does not get is a Problem of that Ingress and costs nothing else.
package gateway
