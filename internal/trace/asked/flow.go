package asked

import (
	"net/netip"
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

// Entry is what an Envoy noted of the request last; ok is false if none did.
func (ev LiveEvidence) Entry() (_ Answer[inspect.LiveAnswer], ok bool) {
	for _, a := range ev.Envoys {
		if n := len(a.Got); n > 0 {
			return Answer[inspect.LiveAnswer]{Node: a.Node, Got: a.Got[n-1]}, true
		}
	}
	return Answer[inspect.LiveAnswer]{}, false
}

// Translated finds the flow whose destination a node translated.
func Translated(list []Answer[FlowAnswer]) (FlowAnswer, bool) {
	for _, f := range list {
		if f.Got.Found && f.Got.Answers != f.Got.To {
			return f.Got, true
		}
	}
	return FlowAnswer{}, false
}
