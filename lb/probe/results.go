package probe

import (
	"errors"
	"net/netip"

	"hythe.dev/hythe/lb"
)

// A Result is how a target did the last time that it was asked.
type Result struct {
	lb.Target
	Good bool
	// Err is why it is bad, nil for one that is good, or was not asked yet.
	Err error
}

var errUntried = errors.New("not asked yet")

// Results lists what is probed for a VIP, in the order of lb.VIP.Probes.
func (p *Prober) Results(vip netip.Addr) []Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Result
	for _, pod := range p.vips[vip] {
		for _, t := range pod.Targets {
			known := p.targets[t]
			r := Result{Target: t, Good: known.good, Err: known.err}
			if !known.good && r.Err == nil {
				r.Err = errUntried
			}
			out = append(out, r)
		}
	}
	return out
}
