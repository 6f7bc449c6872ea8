// Package nginx reads the annotations of ingress-nginx.
//
//	map of annotations ── Read ──> Settings (typed) and Notes (what is not done as it is written)
//	                        │
//	                      Keys, the table: one entry for each annotation, how it is taken, and by which function it is read
//
// It is pure and knows neither Envoy nor other objects than the one Ingress: what depends on Services, Secrets or other
// Ingresses is decided by package gateway with the Settings.
//
// # Adding a key
//
// Find its entry in one of the lists in keys.go, change Support, and give it a reader (readers.go, or a file for the
// concern). The reader puts what it reads into Settings, and returns an error that says what is wrong with the value
// and how to write it: Read adds the annotation's name. A key that Protects closes its paths (503) whenever it cannot be
// read. Then package gateway carries the setting into a Route, Host or Backend, package xds makes Envoy do it, and
// conformance/nginx/testdata shows it.
package nginx
