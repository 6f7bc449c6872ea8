package answer

import (
	"fmt"

	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/lb/speaker"
)

// FromSpeaker is a VIPAnswer of what a node's speaker knows.
func FromSpeaker(in speaker.Inspection) asked.VIPAnswer {
	out := asked.VIPAnswer{
		Claimed: in.Claimed, Local: in.Local, Interface: in.Link.Name, MAC: in.Link.MAC.String(), Up: in.Link.Up,
		Owned: in.Owned, Generation: in.Generation, Healthy: in.Healthy, Draining: in.Draining, Blocked: in.Blocked,
		Asking: in.Asking, Listening: in.Listening, Problem: in.Problem,
	}
	for _, r := range in.Probes {
		p := asked.ProbeAnswer{Target: fmt.Sprintf("%s%s", r.AddrPort, r.Path), Good: r.Good}
		if r.Err != nil {
			p.Error = r.Err.Error()
		}
		out.Probes = append(out.Probes, p)
	}
	for _, p := range in.Peers {
		out.Members = append(out.Members, asked.MemberAnswer{
			Node: p.Node, Alive: p.Alive, Heard: p.Heard, Held: p.Held, MACs: p.MACs,
			Owned: p.Said.Owned, Generation: p.Said.Generation, Healthy: p.Said.Healthy,
		})
	}
	return out
}
