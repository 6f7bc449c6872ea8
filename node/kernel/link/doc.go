// Package link makes the network of a namespace match a State: links, addresses, routes, neighbours, forwarding
// entries and sysctls. It is the only code that touches them.
//
//	overlay.Build ──> State ── Links.Set, Links.Run ──┐
//	                                                  ├──> read, diff, apply ──> rtnetlink, /proc/sys
//	cni.Build ──────> Pod ──── AddPod, CheckPod ──────┘
//
// What belongs to Hythe can be told from the kernel alone: routes by their protocol number, the overlay by its
// link's name and kind, a pod's link by its name. Nothing else is changed, and nothing that was applied is kept in
// memory as a truth: each pass reads the kernel first. A pass over a namespace that is right writes nothing.
package link
