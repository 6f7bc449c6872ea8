// Package scale measures what many TLS hosts cost: a real Envoy is fed by xds.Build and xds/server, each host has a certificate of
// its own, and a client comes for them by new connections.
//
//	World(hosts) ─> gateway.Config ─> xds.Build ─> xds/server.Set ─> Envoy <── one client, a handshake for each request
//
// It has no part of the way from Kubernetes' objects to the Config.
package scale
