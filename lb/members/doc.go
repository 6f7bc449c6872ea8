// Package members knows which nodes are alive, what they own and what they could serve. Nodes tell each other
// by heartbeats, and nobody else is asked: losing the API server changes nothing.
//
//	node a ── UDP, HMAC-SHA256, every 150 ms, to each node of the snapshot ──> node b
//	          {boot, sequence, MACs, VIPs: generation, owned, healthy, draining, blocked; hold, leaving}
//
// A node is dead when nothing was heard of it for 750 ms, unless it announced a hold. Heartbeats go to dead
// nodes too, so that the two sides of a healed partition meet within one interval.
//
// Replays: each process draws a random boot number and counts its messages. A message is believed only if it
// repeats the receiver's own boot number, so none from before the receiver's start counts, and only if its
// sequence number is higher than the last of the same boot; boots that were replaced are never believed again.
package members
