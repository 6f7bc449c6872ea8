// Package probe finds out whether the backends on this node work, by asking them: a dead Envoy must lose its
// VIP although the API server that would say so is away.
//
//	Set(VIP ─> pods ─> targets) ──> one goroutine per target ── connect or GET every 200 ms ──> Healthy(VIP)
//
// A pod works when all its targets answer, a VIP when one of its pods works. Two failures in a row make a target
// bad, one success makes it good; it starts bad. A stopped process still has a kernel that accepts its
// connections, so only the HTTP form notices one.
package probe
