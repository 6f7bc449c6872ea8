// Package kube brings the cluster in: it hands out a model.Snapshot for each state of the world. It is the only package
// that knows where objects come from. Package client below it connects to an API server, package writer writes there.
//
//	manifests/*.yaml ──┐
//	                   ├─ decode ──> objects ── assemble ──────────────┐
//	state/*.yaml ──────┘                                               ├──> *model.Snapshot ──> handler
//	API server ── list, watch ──> replica ── disruption ────> world ───┘
//	           <── writer ── Desired (of the elected controller), Report (of each gateway and node)
//
// In file mode (Files) the manifests folder is written by people and the state folder by Hythe's processes and the
// lab, one writer per file, by rename. An object in the state folder replaces the one of the same kind, namespace and
// name in the manifests folder: so a Service gets its ClusterIP without a change to what a person wrote.
//
// With an API server (API) nothing is handed out before all kinds are complete. While the server is away the last
// Snapshot stays in use; a start without it takes the one that was kept on the node. The same objects make the same
// Snapshot in both modes.
package kube
