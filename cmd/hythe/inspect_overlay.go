package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/check"
	"hythe.dev/hythe/internal/trace/answer"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// foreignChains are the chains of somebody else on this node that drop packets; none where they cannot be read.
func (n *node) foreignChains() []asked.ForeignChain {
	list, err := readback.Droppers()
	if err != nil {
		n.log.Warn("Cannot read the rules of others", "error", err)
		return nil
	}
	return answer.FromDroppers(list)
}

// probeOverlay sends packets to the other end of the overlay, and where the question is about TCP a connection to the
// endpoint behind it: one answer of either is enough, for ICMP may be dropped where the rest is not.
func (n *node) probeOverlay(ctx context.Context, end netip.Addr, q url.Values, to netip.Addr) *asked.OverlayProbe {
	if !end.Is4() {
		return nil // probes are of IPv4
	}
	ctx, cancel := context.WithTimeout(ctx, answer.OverlayWait)
	defer cancel()
	out := &asked.OverlayProbe{To: end}
	connected := make(chan time.Duration, 1)
	port, err := queryPort(q, "port")
	pod := netip.AddrPortFrom(to, port)
	if s := n.last.Load(); err == nil && q.Get("protocol") == "tcp" && s != nil && isPod(s, "", pod) {
		go func() {
			defer close(connected)
			after, err := connect(ctx, pod)
			if err == nil || errors.Is(err, unix.ECONNREFUSED) {
				connected <- after
			}
		}()
	} else {
		close(connected)
	}
	probe := check.Probe{Over: "overlay", To: end, Size: 100}
	for _, p := range check.Send(ctx, []check.Probe{probe, probe}) { // two, since one may be lost
		if p.Error == "" {
			out.After = p.After
			return out
		}
	}
	after, ok := <-connected
	if out.After = after; !ok {
		out.Error = fmt.Sprintf("no answer within %s", answer.OverlayWait)
	}
	return out
}
