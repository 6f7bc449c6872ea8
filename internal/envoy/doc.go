// Package envoy starts an Envoy that takes its whole configuration from a gateway.
//
//	Bootstrap ──> file ──> envoy process ── delta ADS, unix socket ──> xds/server
//	                              └── admin, unix socket only
package envoy
