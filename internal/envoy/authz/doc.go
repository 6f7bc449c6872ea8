// Package authz is the doorkeeper: it answers Envoy's question whether a request may come in, where that takes more than Envoy
// can do: servers that nginx' auth_request asks (auth-url), and passwords with other hashes than {SHA}.
//
//	client ── request ──> Envoy ── Check (ext_authz, gRPC over a unix socket) ──> Server ── Entry ── auth.Reader <── auth.json
//	                        ▲                                                       │  password: htpasswd, what was right is remembered
//	                        └── yes, with headers / 302, 401, 403, 500, 503 ────────┤
//	                                                                                └── server: one request to one of its pods,
//	                                                                                    addresses by the gateway, no DNS
//
// It runs beside Envoy and lives as long: the gateway may restart meanwhile. It never says yes without having been told so: no
// file, no entry, no answer and a panic are all 503. What it does for clients is bounded: questions that are under way, bytes
// that are remembered, and bcrypt comparisons at a time.
package authz
