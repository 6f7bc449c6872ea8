// Package server sends xds.Resources to Envoy: delta ADS on a unix socket, in an order that loses no request, and
// so that what Envoy refuses holds back nothing else.
//
//	Set ── latest wins ──> session ──> machine ── DeltaDiscoveryResponse ──> Envoy
//	                                      ^────── DeltaDiscoveryRequest ─────┘
//
// The machine (machine.go) is pure; a session gives it one stream's messages and the time. Its rules:
//
//   - A new thing: clusters and endpoints, listeners and secrets, acknowledgement, virtual hosts.
//   - An old thing: virtual hosts, acknowledgement, a grace period, clusters.
//   - Endpoints and secrets have lanes of their own and wait for nobody.
//   - One response of a type is on its way at a time; what changes meanwhile goes into the next.
//   - Envoy refuses a response, not a resource: the response is halved until the bad resource is alone. It is set
//     aside with Envoy's reason, and tried again when it changes, or rarely.
//   - Envoy acknowledges a Secret that it could not load when it gets the same bytes again: each try has others.
//   - What clients of the shared chain name is answered always: by a host's key pair, the default one, or as unknown (guests.go).
//   - Versions are hashes of the content. What Envoy says that it has is not sent again.
package server
