package main

import (
	"context"
	"net/netip"
	"time"

	"hythe.dev/hythe/internal/check"
	"hythe.dev/hythe/internal/model"
)

const (
	// besideFirst is when a node first looks for others who do its work: they may only be starting.
	besideFirst = 10 * time.Second
	// besideEvery is how often it looks again. That costs a listing of chains and links.
	besideEvery = 30 * time.Second
)

// lookBeside keeps the Problems of what kube-proxy does beside this agent.
func (n *node) lookBeside(ctx context.Context) error {
	next := time.NewTimer(besideFirst)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		next.Reset(besideEvery)
		n.findBeside()
	}
}

func (n *node) findBeside() {
	f, err := check.ReadBeside(claimedVIPs(n.last.Load()))
	var problems []model.Problem
	if err != nil {
		n.log.Warn("who else serves this node's Services cannot be seen", "error", err)
	} else {
		problems = check.Beside(f, n.name, n.table != nil, n.speaker != nil)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.issues["beside"] = problems
}

// claimedVIPs are the addresses of all claims.
func claimedVIPs(s *model.Snapshot) []netip.Addr {
	if s == nil {
		return nil
	}
	var out []netip.Addr
	for _, c := range s.Claims {
		if a, err := netip.ParseAddr(c.Spec.Address); err == nil {
			out = append(out, a)
		}
	}
	return out
}
