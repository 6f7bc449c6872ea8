package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/trace/asked"
)

// ownerHop says which node owns the VIP, by its own word and by the member tables of the others.
func (b *builder) ownerHop(to netip.Addr) bool {
	h := asked.Hop{Where: "nodes", Part: partOwner}
	owners := b.Owners()
	var errors, silent []string
	for _, v := range b.Evidence.VIPs {
		if v.Error != "" {
			errors, silent = append(errors, v.Node+": "+v.Error), append(silent, v.Node)
		}
	}
	switch {
	case len(owners) == 0 && len(errors) > 0:
		h.State, h.Text = asked.Unknown, "no node that answers owns it; not asked: "+strings.Join(errors, "; ")
		h.Remedy = fmt.Sprintf("Start hythe node on %s.", strings.Join(silent, " and "))
	case len(owners) == 0:
		h.State, h.Text = asked.Broken, fmt.Sprintf("no node owns %s", to)
		why, remedy := b.whyUnowned()
		h.Text += why
		h.Remedy = remedy
	case len(owners) > 1:
		h.State, h.Text = asked.Differs, "two nodes own it: "+generation(owners[0])+" and "+generation(owners[1])
		h.Want = owners[0].Node
		h.Remedy = fmt.Sprintf("%s and %s do not hear each other: look at UDP port 7472 between them, and at their heartbeat keys.",
			owners[0].Node, owners[1].Node)
		b.partly = true
	default:
		h.Text = generation(owners[0])
		if others := b.disagree(owners[0]); others != "" {
			h.State, h.Text = asked.Differs, h.Text+"; "+others
			h.Remedy = "The nodes do not hear each other well: look at UDP port 7472 between them."
		} else if n := len(b.Evidence.VIPs); n > 1 {
			h.Text += fmt.Sprintf("; all %d nodes agree", n)
		}
	}
	return b.add(h)
}

func generation(v asked.Answer[asked.VIPAnswer]) string {
	return fmt.Sprintf("%s in generation %d", v.Node, v.Got.Generation)
}

// disagree says which nodes see another owner than the one there is.
func (b *builder) disagree(owner asked.Answer[asked.VIPAnswer]) string {
	var out []string
	for _, v := range b.Evidence.VIPs {
		if v.Error != "" || v.Node == owner.Node {
			continue
		}
		for _, m := range v.Got.Members {
			switch {
			case m.Node == owner.Node && !m.Alive:
				out = append(out, fmt.Sprintf("%s hears nothing of %s", v.Node, owner.Node))
			case m.Node == owner.Node && !m.Owned:
				out = append(out, fmt.Sprintf("%s has not heard that %s owns it", v.Node, owner.Node))
			case m.Node != owner.Node && m.Owned && m.Alive:
				out = append(out, fmt.Sprintf("%s sees %s own it in generation %d", v.Node, m.Node, m.Generation))
			}
		}
	}
	return strings.Join(out, ", ")
}

// whyUnowned explains node by node why nobody takes the VIP, and gives the remedy of the weightiest reason.
func (b *builder) whyUnowned() (why, remedy string) {
	var lines []string
	remedies := map[int]string{}
	note := func(weight int, node, reason, remedy string) {
		lines = append(lines, node+": "+reason)
		if remedies[weight] == "" {
			remedies[weight] = remedy
		}
	}
	for _, v := range b.Evidence.VIPs {
		got, bad := v.Got, badProbe(v.Got.Probes)
		switch {
		case v.Error != "":
			lines = append(lines, v.Node+": "+v.Error)
		case got.Without:
			note(5, v.Node, "announces nothing", "Start hythe node with --heartbeat-key and without --without-lb.")
		case got.Problem != "":
			note(0, v.Node, got.Problem, got.Problem)
		case !got.Up:
			note(1, v.Node, got.Interface+" has no carrier", fmt.Sprintf("Look at the cable of %s on %s.", got.Interface, v.Node))
		case bad != "":
			note(2, v.Node, bad, "Bring the backend up: each node probes its own, and only a node with a working one may own the address (externalTrafficPolicy Local).")
		case !got.Healthy && b.unready() != "":
			note(3, v.Node, "no ready backend", "No pod of the Service is ready: look at "+b.unready()+", at its readiness probe and log.")
		case !got.Healthy:
			note(4, v.Node, "no backend", "Let a backend of the Service run on a node: with externalTrafficPolicy Local a node without one cannot own the address.")
		case got.Draining:
			note(3, v.Node, "draining", "Take the label node.kubernetes.io/exclude-from-external-load-balancers from a node, or wait until its backends are back.")
		case got.Asking || got.Listening:
			note(1, v.Node, "about to take it", "Wait some seconds: an address is taken after the LAN was asked whether it is free. Then trace again.")
		default:
			note(6, v.Node, "waits for others", "Trace again in a second; if it stays, look at the log of hythe node.")
		}
	}
	for weight := range 7 {
		if remedies[weight] != "" {
			remedy = remedies[weight]
			break
		}
	}
	if len(lines) == 0 {
		return "", "Start hythe node on the nodes: none answers."
	}
	return "; " + strings.Join(lines, "; "), remedy
}

// unready names the pods behind the Service's port if none of them is usable.
func (b *builder) unready() string {
	port, _ := b.Port()
	if usable(port.Endpoints) > 0 {
		return ""
	}
	var names []string
	for _, e := range port.Endpoints {
		names = append(names, cmp.Or(e.Pod, e.Address.String()))
	}
	return strings.Join(names, ", ")
}

func badProbe(probes []asked.ProbeAnswer) string {
	for _, p := range probes {
		if !p.Good {
			return fmt.Sprintf("probe of %s fails: %s", p.Target, p.Error)
		}
	}
	return ""
}

// arpHops say who answers on the wire, as each asker heard it.
func (b *builder) arpHops(to netip.Addr) bool {
	owners := b.Owners()
	if len(owners) == 0 {
		return true
	}
	if len(b.Evidence.ARP) == 0 {
		h := asked.Hop{Where: "LAN", Part: partARP, State: asked.Unknown, Text: "not asked: only a node that does not own the address can ask",
			Remedy: fmt.Sprintf("Ask from another host of the LAN: arping -I INTERFACE %s must show %s.", to, owners[0].Got.MAC)}
		unclear := b.unclear
		b.add(h)
		b.unclear = unclear // what a node says of itself is enough where nobody else can ask
		return true
	}
	ok := true
	for _, a := range b.Evidence.ARP {
		ok = b.add(b.arpHop(a, to, owners)) && ok
	}
	return ok
}

func (b *builder) arpHop(a asked.Answer[asked.ARPAnswer], to netip.Addr, owners []asked.Answer[asked.VIPAnswer]) asked.Hop {
	h := asked.Hop{Where: "LAN", Part: partARP}
	owner := owners[0]
	want := fmt.Sprintf("%s (%s)", owner.Got.MAC, owner.Node)
	isOwner := func(r asked.ARPReply) bool {
		return slices.ContainsFunc(owners, func(o asked.Answer[asked.VIPAnswer]) bool { return o.Got.MAC == r.MAC })
	}
	foreign := slices.IndexFunc(a.Got.Replies, func(r asked.ARPReply) bool { return b.NodeOfMAC(r) == "" })
	switch {
	case a.Error != "":
		h.State, h.Text = asked.Unknown, fmt.Sprintf("%s cannot ask: %s", a.Node, a.Error)
		h.Remedy = fmt.Sprintf("Look at the interface for VIPs on %s.", a.Node)
	case len(a.Got.Replies) == 0:
		h.State, h.Text = asked.Broken, fmt.Sprintf("%s asks who has %s: nobody answers within %s", a.Node, to, millis(a.Got.Waited))
		h.Want = want
		h.Remedy = fmt.Sprintf("%s owns the address and is not heard by %s: look at %s of %s, its cable and the switch between them.",
			owner.Node, a.Node, owner.Got.Interface, owner.Node)
	case foreign >= 0:
		r := a.Got.Replies[foreign]
		h.State, h.Text = asked.Broken, fmt.Sprintf("%s asks who has %s: %s", a.Node, to, b.replies(a.Got.Replies))
		h.Want = want
		h.Remedy = fmt.Sprintf("Take %s away from the host with the MAC %s, or out of its AddressPool.", to, r.MAC)
	case !slices.ContainsFunc(a.Got.Replies, isOwner):
		h.State, h.Text = asked.Broken, fmt.Sprintf("%s asks who has %s: %s answers, which says that it does not own it", a.Node, to, b.replies(a.Got.Replies))
		h.Want = want
		h.Remedy = "Trace again: the address may just have moved. If it stays, restart hythe node on the node that answers."
	case len(a.Got.Replies) > 1:
		h.State, h.Text = asked.Differs, fmt.Sprintf("%s asks who has %s: %s answer", a.Node, to, b.replies(a.Got.Replies))
		h.Want = want
		h.Remedy = "Routers believe the one or the other: only one node must own the address."
		b.partly = true
	default:
		h.Text = fmt.Sprintf("%s asks who has %s: %s", a.Node, to, b.replies(a.Got.Replies))
	}
	return h
}

func (b *builder) replies(list []asked.ARPReply) string {
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("%s (%s) after %s", r.MAC, cmp.Or(b.NodeOfMAC(r), "no node"), millis(r.After)))
	}
	return strings.Join(out, " and ")
}

// millis is a short time for people.
func millis(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
