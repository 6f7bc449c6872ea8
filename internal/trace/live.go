package trace

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/inspect"
)

// A FlowAnswer is what a node's conntrack knows of a connection.
type FlowAnswer struct {
	Found bool `json:"found"`
	// From and To are as the first packet had them. Answers is who answers: another one than To where it was translated.
	From    netip.AddrPort `json:"from,omitzero"`
	To      netip.AddrPort `json:"to,omitzero"`
	Answers netip.AddrPort `json:"answers,omitzero"`
	// Back is where answers go: another one than From where the source was masqueraded.
	Back netip.AddrPort `json:"back,omitzero"`
}

// Sent is what a client saw of the request that it sent itself.
type Sent struct {
	// ID is the mark.
	ID    string         `json:"id"`
	Where string         `json:"where"` // the machine that sent it
	Local netip.AddrPort `json:"local,omitzero"`
	To    netip.AddrPort `json:"to"`
	// NextHop is whom the packets were handed to, with its MAC: the VIP itself on the same LAN, else a router.
	NextHop string `json:"nextHop,omitempty"`
	// The times count from the start of each step.
	Connect   time.Duration `json:"connect"`
	Handshake time.Duration `json:"handshake,omitempty"`
	Answer    time.Duration `json:"answer,omitempty"`
	// Certificate is the one that the server showed, Untrusted why a client would refuse it.
	Certificate string `json:"certificate,omitempty"`
	Untrusted   string `json:"untrusted,omitempty"`
	Status      string `json:"status,omitempty"`
	// Failed is the step that failed ("connect", "handshake", "request"), and Error why.
	Failed string `json:"failed,omitempty"`
	Error  string `json:"error,omitempty"`
}

// LiveEvidence is where a marked request was seen.
type LiveEvidence struct {
	Sent Sent `json:"sent"`
	// Envoys are the entries that Envoys made of the mark, by node.
	Envoys []Answer[[]inspect.LiveAnswer] `json:"envoys,omitempty"`
	// Client is the client's connection and Upstream Envoy's to the endpoint, by node.
	Client   []Answer[FlowAnswer] `json:"client,omitempty"`
	Onward   []Answer[FlowAnswer] `json:"onward,omitempty"` // the client's, once translated
	Upstream []Answer[FlowAnswer] `json:"upstream,omitempty"`
}

// BuildLive makes the hops that a marked request really took. Where it comes from is the client's own word; all else is
// what conntrack of the nodes and the access log of Envoy have of it. t is the trace of the same question: a hop that it does
// not have is marked.
func BuildLive(t Trace, ev LiveEvidence) Trace {
	b := liveBuilder{builder: builder{}, planned: t.Hops}
	url := t.Question.Kind == KindURL
	out := Trace{Question: t.Question, From: ev.Sent.Where, Verdict: Arrives}
	b.connect(ev)
	b.flows(ev.Client, "from the client")
	b.flows(ev.Onward, "arriving")
	entry, seen := entryOf(ev)
	if url {
		b.client(ev)
		b.envoy(entry, seen, ev)
		b.flows(ev.Upstream, "from Envoy")
	}
	b.endpoint(url, entry.Got, ev)
	switch {
	case ev.Sent.Failed == "request":
		b.add(Hop{Where: ev.Sent.Where, Part: "answer", State: Broken, Text: fmt.Sprintf("none: %s after %s", ev.Sent.Error, millis(ev.Sent.Answer)),
			Remedy: "The hops above say how far it came; if Envoy has not seen it, look at what is between client and node."})
	case ev.Sent.Status != "":
		b.add(Hop{Where: ev.Sent.Where, Part: "answer", Text: fmt.Sprintf("%s after %s", ev.Sent.Status, millis(ev.Sent.Answer))})
	}
	out.Hops = b.hops
	if b.broken != nil {
		out.Verdict, out.Remedy = Fails, b.broken.Remedy
		out.Summary = fmt.Sprintf("it ends at %s, %s", b.broken.Where, b.broken.Part)
		return out
	}
	out.Summary = ev.Sent.Status
	if h := b.first(Differs, Unknown); h != nil {
		out.Remedy = h.Remedy
	}
	return out
}

type liveBuilder struct {
	builder
	planned []Hop
}

// connect is the client's connection.
func (b *liveBuilder) connect(ev LiveEvidence) {
	s := ev.Sent
	h := Hop{Where: s.Where, Part: "connect", Text: fmt.Sprintf("%s ─> %s in %s", s.Local, s.To, millis(s.Connect))}
	if s.NextHop != "" {
		h.Text += ", by " + s.NextHop
	}
	if s.Failed == "connect" {
		h.State, h.Text = Broken, fmt.Sprintf("to %s: %s after %s", s.To, s.Error, millis(s.Connect))
		if s.NextHop != "" {
			h.Text += ", by " + s.NextHop
		}
		h.Remedy = "The trace above says where connections end. If it finds nothing: look at the way from this client to the LAN, at its route and firewall."
	}
	b.add(h)
}

// flows says which nodes have a connection in conntrack.
func (b *liveBuilder) flows(list []Answer[FlowAnswer], whose string) {
	for _, f := range list {
		if !f.Got.Found {
			continue
		}
		h := Hop{Where: f.Node + "/kernel", Part: "flow", Text: fmt.Sprintf("%s: %s ─> %s", whose, f.Got.From, f.Got.To)}
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
func (b *liveBuilder) client(ev LiveEvidence) {
	s := ev.Sent
	switch {
	case s.Failed == "handshake":
		b.add(Hop{Where: s.Where, Part: partCertificate, State: Broken, Text: "TLS: " + s.Error,
			Remedy: "Look at the certificate's hop above, and whether something between client and node ends TLS."})
	case s.Certificate != "":
		h := Hop{Where: s.Where, Part: partCertificate, Text: fmt.Sprintf("%s in %s", s.Certificate, millis(s.Handshake))}
		if s.Untrusted != "" {
			h.State, h.Want = Differs, "a certificate that this machine trusts: "+s.Untrusted
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

func entryOf(ev LiveEvidence) (Answer[inspect.LiveAnswer], bool) {
	for _, a := range ev.Envoys {
		if n := len(a.Got); n > 0 {
			return Answer[inspect.LiveAnswer]{Node: a.Node, Got: a.Got[n-1]}, true
		}
	}
	return Answer[inspect.LiveAnswer]{}, false
}

// envoy is what Envoy noted of the request.
func (b *liveBuilder) envoy(entry Answer[inspect.LiveAnswer], seen bool, ev LiveEvidence) {
	if !seen {
		if ev.Sent.Failed != "" {
			return
		}
		h := Hop{Where: whereCluster, Part: partRequest, State: Broken, Text: "no Envoy of Hythe has seen it, though somebody answered"}
		h.Remedy = "Somebody else answers at the address: see the arp hop above, and proxies between client and node."
		for _, a := range ev.Envoys {
			if a.Error != "" {
				h.State, h.Text = Unknown, fmt.Sprintf("%s cannot be asked: %s", a.Node, a.Error)
				h.Remedy = fmt.Sprintf("Start hythe gateway on %s.", a.Node)
			}
		}
		b.add(h)
		return
	}
	e := entry.Got
	where := entry.Node + "/envoy"
	b.add(Hop{Where: where, Part: "listener", Text: strings.Join(words(
		"from "+e.Client+" on "+e.Listener, prefixed("server name ", e.ServerName), e.TLS), ", ")})
	text := fmt.Sprintf("%s %s%s ─> %d", e.Method, e.Host, e.Path, e.Status)
	if e.Cluster != "" {
		text += " by cluster " + e.Cluster
	}
	b.add(Hop{Where: where, Part: partRequest, Text: text + times(e)})
	switch failed := e.Flags != "" || e.Failure != ""; {
	case e.Upstream == "" && !failed && e.Status >= http.StatusBadRequest:
		b.add(Hop{Where: where, Part: partRoute, State: Broken, Text: strings.Join(words(fmt.Sprintf("Envoy answered %d itself", e.Status), e.Details), ", "),
			Remedy: "The host's and the route's hops above say why."})
	case e.Upstream == "" && failed:
		b.add(Hop{Where: where, Part: partEndpoints, State: Broken, Text: strings.Join(words("no endpoint answered", e.Details, prefixed("flags ", e.Flags), e.Failure), ", "),
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
func (b *liveBuilder) endpoint(url bool, e inspect.LiveAnswer, ev LiveEvidence) {
	var to netip.AddrPort
	if url {
		to, _ = netip.ParseAddrPort(e.Upstream)
	} else {
		f, _ := translated(ev.Client)
		to = f.Answers
	}
	if !to.IsValid() {
		return
	}
	for _, h := range b.planned {
		if h.Part == partPod && strings.HasPrefix(h.Text, to.String()) {
			b.add(Hop{Where: h.Where, Part: partPod, Text: to.String(), Object: h.Object, Since: h.Since})
			return
		}
	}
	b.add(Hop{Where: whereCluster, Part: partPod, State: Differs, Text: to.String() + " is not on the road above",
		Remedy: "The endpoints have just changed, or somebody else's rules translate the connection: trace again."})
}
