// Package inspect asks the running processes of Hythe what they have.
//
//	hythe get, trace, check, support-bundle
//	        │ Open(addresses)            GET /inspect/process    who are you
//	        ▼
//	*Cluster ── Process.Get(NAME) ─────> GET /inspect/NAME       read back from the kernel, from Envoy, from the wire
//	           └ Process.Text(NAME) ───> GET /debug/NAME         the same for people
//
// An address is where a process serves its admin pages: "HOST:PORT" or "unix:PATH". A Place is where there is none: a pod,
// reached by internal/kube/forward.
package inspect
