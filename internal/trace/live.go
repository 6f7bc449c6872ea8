package trace

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/trace/asked"
)

// BuildLive makes the hops that a marked request really took. Where it comes from is the client's own word; all else is
// what conntrack of the nodes and the access log of Envoy have of it. t is the trace of the same question: a hop that it does
// not have is marked.
func BuildLive(t Trace, ev asked.LiveEvidence) Trace {
	b := liveBuilder{builder: builder{}, planned: t.Hops}
	url := t.Question.Kind == asked.KindURL
	out := Trace{Question: t.Question, From: ev.Sent.Where, Verdict: Arrives}
	b.connect(ev)
	b.flows(ev.Client, "from the client")
	b.flows(ev.Onward, "arriving")
	entry, seen := ev.Entry()
	if url {
		b.client(ev)
		b.envoy(entry, seen, ev)
		b.flows(ev.Upstream, "from Envoy")
	}
	b.endpoint(url, entry.Got, ev)
	switch {
	case ev.Sent.Failed == "request":
		b.add(asked.Hop{Where: ev.Sent.Where, Part: "answer", State: asked.Broken, Text: fmt.Sprintf("none: %s after %s", ev.Sent.Error, millis(ev.Sent.Answer)),
			Remedy: "The hops above say how far it came; if Envoy has not seen it, look at what is between client and node."})
	case ev.Sent.Status != "":
		b.add(asked.Hop{Where: ev.Sent.Where, Part: "answer", Text: fmt.Sprintf("%s after %s", ev.Sent.Status, millis(ev.Sent.Answer))})
	}
	out.Hops = b.hops
	if b.broken != nil {
		out.Verdict, out.Remedy = Fails, b.broken.Remedy
		out.Summary = fmt.Sprintf("it ends at %s, %s", b.broken.Where, b.broken.Part)
		return out
	}
	out.Summary = ev.Sent.Status
	if h := b.first(asked.Differs, asked.Unknown); h != nil {
		out.Remedy = h.Remedy
	}
	return out
}

type liveBuilder struct {
	builder
	planned []asked.Hop
}

// connect is the client's connection.
func (b *liveBuilder) connect(ev asked.LiveEvidence) {
	s := ev.Sent
	h := asked.Hop{Where: s.Where, Part: "connect", Text: fmt.Sprintf("%s ─> %s in %s", s.Local, s.To, millis(s.Connect))}
	if s.NextHop != "" {
		h.Text += ", by " + s.NextHop
	}
	if s.Failed == "connect" {
		h.State, h.Text = asked.Broken, fmt.Sprintf("to %s: %s after %s", s.To, s.Error, millis(s.Connect))
		if s.NextHop != "" {
			h.Text += ", by " + s.NextHop
		}
		h.Remedy = "The trace above says where connections end. If it finds nothing: look at the way from this client to the LAN, at its route and firewall."
	}
	b.add(h)
}

// flows says which nodes have a connection in conntrack.
func (b *liveBuilder) flows(list []asked.Answer[asked.FlowAnswer], whose string) {
	for _, f := range list {
		if !f.Got.Found {
			continue
		}
		h := asked.Hop{Where: f.Node + "/kernel", Part: "flow", Text: fmt.Sprintf("%s: %s ─> %s", whose, f.Got.From, f.Got.To)}
		if f.Got.Answers != f.Got.To {
			h.Text += fmt.Sprintf(" translated to %s", f.Got.Answers)
		}
		if f.Got.Back.Addr() != f.Got.From.Addr() {
			h.Text += fmt.Sprintf(", masqueraded as %s", f.Got.Back.Addr())
		}
		b.add(h)
	}
}

// client is what the client saw of TLS.
func (b *liveBuilder) client(ev asked.LiveEvidence) {
	s := ev.Sent
	switch {
	case s.Failed == "handshake":
		b.add(asked.Hop{Where: s.Where, Part: partCertificate, State: asked.Broken, Text: "TLS: " + s.Error,
			Remedy: "Look at the certificate's hop above, and whether something between client and node ends TLS."})
	case s.Certificate != "":
		h := asked.Hop{Where: s.Where, Part: partCertificate, Text: fmt.Sprintf("%s in %s", s.Certificate, millis(s.Handshake))}
		if s.Untrusted != "" {
			h.State, h.Want = asked.Differs, "a certificate that this machine trusts: "+s.Untrusted
			h.Remedy = "Clients that do not know the issuer refuse it: have it issued by one that they know."
		}
		b.add(h)
	}
}

const (
	partCertificate = "certificate"
	partRoute       = "route"
	partEndpoints   = "endpoints"
)

// envoy is what Envoy noted of the request.
func (b *liveBuilder) envoy(entry asked.Answer[inspect.LiveAnswer], seen bool, ev asked.LiveEvidence) {
	if !seen {
		if ev.Sent.Failed != "" {
			return
		}
		h := asked.Hop{Where: whereCluster, Part: partRequest, State: asked.Broken, Text: "no Envoy of Hythe has seen it, though somebody answered"}
		h.Remedy = "Somebody else answers at the address: see the arp hop above, and proxies between client and node."
		for _, a := range ev.Envoys {
			if a.Error != "" {
				h.State, h.Text = asked.Unknown, fmt.Sprintf("%s cannot be asked: %s", a.Node, a.Error)
				h.Remedy = fmt.Sprintf("Start hythe gateway on %s.", a.Node)
			}
		}
		b.add(h)
		return
	}
	e := entry.Got
	where := entry.Node + "/envoy"
	b.add(asked.Hop{Where: where, Part: "listener", Text: strings.Join(words(
		"from "+e.Client+" on "+e.Listener, prefixed("server name ", e.ServerName), e.TLS), ", ")})
	text := fmt.Sprintf("%s %s%s ─> %d", e.Method, e.Host, e.Path, e.Status)
	if e.Cluster != "" {
		text += " by cluster " + e.Cluster
	}
	b.add(asked.Hop{Where: where, Part: partRequest, Text: text + times(e)})
	switch failed := e.Flags != "" || e.Failure != ""; {
	case e.Upstream == "" && !failed && e.Status >= http.StatusBadRequest:
		b.add(asked.Hop{Where: where, Part: partRoute, State: asked.Broken, Text: strings.Join(words(fmt.Sprintf("Envoy answered %d itself", e.Status), e.Details), ", "),
			Remedy: "The host's and the route's hops above say why."})
	case e.Upstream == "" && failed:
		b.add(asked.Hop{Where: where, Part: partEndpoints, State: asked.Broken, Text: strings.Join(words("no endpoint answered", e.Details, prefixed("flags ", e.Flags), e.Failure), ", "),
			Remedy: "The endpoints' hops above say which of them answers."})
	}
}

// words leaves out empty ones.
func words(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func times(e inspect.LiveAnswer) string {
	var out []string
	for _, t := range []struct {
		what string
		d    time.Duration
	}{{"sent on", e.UpstreamConnected}, {"first byte", e.FirstByte}, {"done", e.Done}} {
		if t.d >= 0 {
			out = append(out, t.what+" after "+millis(t.d))
		}
	}
	if e.Attempts > 1 {
		out = append(out, fmt.Sprintf("%d endpoints tried", e.Attempts))
	}
	if len(out) == 0 {
		return ""
	}
	return "; " + strings.Join(out, ", ")
}

// endpoint is who answered in the end.
func (b *liveBuilder) endpoint(url bool, e inspect.LiveAnswer, ev asked.LiveEvidence) {
	var to netip.AddrPort
	if url {
		to, _ = netip.ParseAddrPort(e.Upstream)
	} else {
		f, _ := asked.Translated(ev.Client)
		to = f.Answers
	}
	if !to.IsValid() {
		return
	}
	for _, h := range b.planned {
		if h.Part == partPod && strings.HasPrefix(h.Text, to.String()) {
			b.add(asked.Hop{Where: h.Where, Part: partPod, Text: to.String(), Object: h.Object, Since: h.Since})
			return
		}
	}
	b.add(asked.Hop{Where: whereCluster, Part: partPod, State: asked.Differs, Text: to.String() + " is not on the road above",
		Remedy: "The endpoints have just changed, or somebody else's rules translate the connection: trace again."})
}
