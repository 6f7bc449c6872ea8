// Package trace says why a request arrives, or why it does not.
//
// It follows one request hop by hop. Each hop is read back from where it runs: Envoy's configuration, the kernel's
// tables, the wire. Next to what is there stands what Build wants, if it differs, and the object that decided it.
//
//	Question ──> which processes to ask ──> their /inspect answers ──> Build ──> []Hop, Verdict
//
// Build is pure. What asks is in ask.go.
package trace
