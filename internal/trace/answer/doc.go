// Package answer makes the answers of a node to hythe trace, of what it read back and of what Build wants. It is pure: who
// reads the kernel and the wire is cmd/hythe.
//
//	Snapshot ─────────────> FindService   ─> asked.ServiceAnswer
//	lb/speaker ───────────> FromSpeaker   ─> asked.VIPAnswer
//	node/kernel/nft ──────> FromKernel    ─> asked.Frontend   <─ Wanted      <── proxy.State
//	node/kernel/link ─────> RouteFound    ─> asked.RouteAnswer <─ RouteWanted <── link.State
package answer
