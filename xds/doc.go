// Package xds turns a gateway.Config into the resources that Envoy asks for by xDS.
//
//	           Listener http :8080 ─┐                        ┌─ VirtualHost all/shop.example.com ─┐
//	                                ├─ RouteConfiguration ───┤                                    ├─> Cluster ─> endpoints
//	Secret ─> Listener https :8443 ─┘  all (vhds)            └─ VirtualHost all/_default ─────────┘
//	          a filter chain for each certificate, and a shared one for hosts beyond Settings.OwnChains
//
// Build is pure. There is one route table for both listeners, and every host of it is a resource of its own, so
// that a change costs the changed host only and Envoy refuses a bad host alone. Package xds/server sends them.
//
// # Which host may be asked on which connection
//
// Each filter chain stamps its connections with a hash of its certificate and TLS policy. The first route of a
// host answers 421 (RFC 9110 section 15.5.20) to requests on connections with another stamp, so a client that
// shares an HTTP/2 connection between hosts cannot pass by a host's own TLS settings. Names that only the catch-all
// serves are asked on the chains of the default certificate, of wildcards, and of names without a host.
//
// # Which paths are refused
//
// Envoy normalizes a path before it looks for a route, and forwards what it normalized. What a pod could still read as
// another path is refused (refuse.go).
package xds
