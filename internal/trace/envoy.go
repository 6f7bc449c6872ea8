package trace

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/internal/trace/road"
)

// envoys follows the request through each Envoy that it can come to. The first is shown whole, of the others only what
// is not the same.
func (b *builder) envoys() {
	var shown []asked.Hop
	good, bad := 0, 0
	var failed *asked.Hop
	for i, a := range b.inOrder() {
		where := a.Node + "/envoy"
		if a.Error != "" {
			b.add(asked.Hop{Where: where, Part: partRequest, State: asked.Unknown, Text: "cannot be read: " + a.Error,
				Remedy: fmt.Sprintf("Start hythe gateway on %s; its Envoy goes on with what it has.", a.Node)})
			continue
		}
		before := len(b.hops)
		ok := b.request(a, shown, i == 0)
		if slices.ContainsFunc(a.Got.Hops, func(h asked.Hop) bool { return h.State == asked.Unknown }) {
			b.unclear = true // what follows in this Envoy is not known
		}
		if i == 0 {
			shown = a.Got.Hops
		}
		switch {
		case ok:
			good++
		default:
			bad++
			switch {
			case failed != nil:
			case b.broken != nil: // all ways behind this Envoy
				failed = b.broken
			default:
				failed = lastBroken(b.hops[before:], road.Leg{Node: where})
			}
			b.broken = nil
		}
	}
	switch {
	case bad > 0 && good == 0:
		b.broken = failed
	case bad > 0:
		b.partly = true
	}
}

// inOrder are the gateways' answers, that of the entry node first.
func (b *builder) inOrder() []asked.Answer[asked.RequestAnswer] {
	var out []asked.Answer[asked.RequestAnswer]
	for _, node := range b.Gateways() {
		found := asked.Answer[asked.RequestAnswer]{Node: node, Error: "hythe gateway there does not answer"}
		for _, a := range b.Evidence.Requests {
			if a.Node == node {
				found = a
			}
		}
		out = append(out, found)
	}
	return out
}

// request adds the hops of one Envoy, and the ways to its endpoints. Hops that are as those shown before are left out.
func (b *builder) request(a asked.Answer[asked.RequestAnswer], shown []asked.Hop, whole bool) bool {
	ok, same := true, true
	for _, h := range a.Got.Hops {
		repeated := contains(shown, h)
		same = same && repeated
		if !whole && (repeated || h.State == asked.OK) {
			continue
		}
		ok = b.way(h) && ok
	}
	for _, h := range a.Got.Hops {
		ok = ok && h.State != asked.Broken
	}
	if !whole {
		text := "the same as there"
		if !same {
			text = "else the same"
		}
		if ok {
			b.way(asked.Hop{Where: a.Node + "/envoy", Part: partRequest, Text: fmt.Sprintf("%s, %d endpoints", text, len(a.Got.Endpoints))})
		}
	}
	if !ok {
		return false
	}
	if b.answer == "" {
		b.answer = answerText(a)
	}
	return b.ways(b.EnvoyLegs(a), func(ap netip.AddrPort) bool {
		for _, e := range a.Got.Endpoints {
			if e.Address == ap {
				return e.Healthy
			}
		}
		return false
	})
}

// contains says whether the same hop is in a list, wherever it is.
func contains(list []asked.Hop, h asked.Hop) bool {
	for _, o := range list {
		if o.Part == h.Part && o.Text == h.Text && o.State == h.State && o.Want == h.Want {
			return true
		}
	}
	return false
}

func answerText(a asked.Answer[asked.RequestAnswer]) string {
	if len(a.Got.Endpoints) == 0 && a.Got.Status != 0 && a.Got.Status != http.StatusOK {
		return strings.TrimSpace(fmt.Sprintf("Envoy answers %d %s itself", a.Got.Status, http.StatusText(a.Got.Status)))
	}
	return ""
}
