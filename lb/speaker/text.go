package speaker

import (
	"fmt"
	"io"
	"time"
)

// WriteText writes what this node knows about VIPs, for people.
func (s *Speaker) WriteText(w io.Writer) {
	alive := s.members.Alive()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arp == nil {
		fmt.Fprintln(w, "waiting for the first snapshot")
		return
	}
	link := s.arp.Link()
	fmt.Fprintf(w, "node %s interface %s mac %s up=%t listening=%t draining=%t\n", s.opts.Node, link.Name, link.MAC, link.Up, s.listening, s.draining)
	for _, v := range s.vips {
		h := s.keeper.vips[v.Addr]
		if h == nil {
			h = &holding{}
		}
		policy := "Cluster"
		healthy := true
		if v.Local {
			policy, healthy = "Local", s.prober.Healthy(v.Addr)
		}
		fmt.Fprintf(w, "vip %s %s owned=%t generation=%d healthy=%t asking=%t blocked=%t", v.Addr, policy, h.owned, h.generation, healthy, h.asking, h.blocked)
		for _, m := range alive {
			if said, ok := m.VIP(v.Addr); ok && said.Owned {
				fmt.Fprintf(w, " owner=%s", m.Name)
			}
		}
		fmt.Fprintln(w)
	}
	for _, m := range alive {
		fmt.Fprintf(w, "member %s heard=%s held=%t", m.Name, m.Age.Round(time.Millisecond), m.Held)
		if since, ok := s.vigil.since[m.Name]; ok {
			fmt.Fprintf(w, " answered=%t", answered(since, s.arp.Heard(s.addressOf(m.Name))))
		}
		for _, mac := range m.MACs {
			fmt.Fprintf(w, " mac=%s", mac)
		}
		fmt.Fprintln(w)
	}
	for _, p := range s.keeper.problems() {
		fmt.Fprintln(w, "problem", p)
	}
	s.prober.WriteText(w)
}
