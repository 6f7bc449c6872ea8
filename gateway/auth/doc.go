// Package auth has the table of who may come in where Envoy cannot decide it alone: which server is asked, and passwords whose
// hashes Envoy cannot compare. The gateway writes it to a file, and the doorkeeper beside Envoy reads it for each request.
//
//	gateway.Build ──> Table ── Writer ──> auth.json (memory, mode 0600) ── Reader ──> doorkeeper (internal/envoy/authz)
//	                                                                                      ▲ name of an Entry │ yes or no
//	                                                        Envoy: route of an Ingress ───┘                 ▼
//
// The file outlives the gateway, so requests that need it are served while the gateway restarts or is replaced.
package auth
