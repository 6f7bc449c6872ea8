// Package policy has the words for what may be set on a route, a host or a backend, whoever asked for it: annotations of
// ingress-nginx today (package gateway/nginx reads them), other APIs later. They are not Envoy's words: package xds
// translates them.
//
//	annotations ── nginx.Read ──> policy.Route, policy.Host, policy.Backend ── gateway.Build ──> gateway.Config ── xds.Build
//
// The zero value of each means the default. Nothing here changes after it was made: routes share it.
package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Route is what happens to the requests of a route on their way.
type Route struct {
	// Rewrite is the path that the backend sees in the place of the whole path, with $1 to $9 for what the parentheses of
	// the route's regular expression took; empty leaves the path as it is. The query stays.
	Rewrite string
	// HostHeader is the Host that the backend sees; empty for the client's.
	HostHeader string
	// Redirect answers in the place of the backend.
	Redirect Redirect
	// Idle ends a request on which no byte moved for so long; 0 means the default of package xds. It is no total limit.
	Idle time.Duration
	// MaxBody is how many bytes a request's body may have, more is answered 413; 0 means no limit.
	MaxBody uint64
	// Sources says which clients may come; others are answered 403.
	Sources Sources
	// SatisfyAny lets in who comes from Sources.Allow or can say who he is; otherwise both are needed.
	SatisfyAny bool
	// CORS, Request and Answer are in access.go, as are the changes of headers, in their order.
	CORS                            CORS
	RequestHeaders, ResponseHeaders []Header
	Answer                          Answer
	// Session, Limits, Hash and Retry are in traffic.go.
	Session Session
	Limits  Limits
	Hash    []HashKey
	Retry   Retry
	// Answers, in answer.go, are changes of what backends answer.
	Answers Answers
	// Quiet writes no access log.
	Quiet bool
}

// Sources are client addresses. The lists are sorted, without repetition, and of masked prefixes.
type Sources struct {
	// Allow lets only these in, if there are any; Deny keeps these out, also where Allow has them.
	Allow, Deny []netip.Prefix
}

// Empty says whether everybody may come.
func (s Sources) Empty() bool { return len(s.Allow) == 0 && len(s.Deny) == 0 }

// Admits says whether a client may come.
func (s Sources) Admits(client netip.Addr) bool {
	in := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(client.Unmap()) })
	}
	return (len(s.Allow) == 0 || in(s.Allow)) && !in(s.Deny)
}

// A Host is what is set for all of a host.
type Host struct {
	// Aliases are further names under which the same is served.
	Aliases []string
	// AppRoot is where requests for exactly "/" are sent, by 302; empty for nowhere. RelativeRoot names no host there.
	AppRoot      string
	RelativeRoot bool
	// WWW redirects the name with "www." in front to the one without, or the other way round, whichever is not served.
	WWW bool
}

// A Protocol is what a backend speaks.
type Protocol uint8

// The protocols; the zero value is HTTP/1.1 in the clear.
const (
	HTTP  Protocol = iota
	HTTPS          // HTTP/1.1 over TLS
	H2C            // HTTP/2 in the clear: gRPC
	H2             // HTTP/2 over TLS: gRPC with TLS
)

// String is the name in texts and in names of Backends.
func (p Protocol) String() string { return [...]string{"http", "https", "h2c", "h2"}[p] }

// TLS says whether connections are encrypted.
func (p Protocol) TLS() bool { return p == HTTPS || p == H2 }

// HTTP2 says whether HTTP/2 is spoken.
func (p Protocol) HTTP2() bool { return p == H2C || p == H2 }

// A Backend is how a Service port is spoken to. What differs between two Backends of one Service port stands in String,
// which is part of the Backend's name.
type Backend struct {
	// ConnectTimeout is for one attempt; 0 means the default of package xds.
	ConnectTimeout time.Duration
	Protocol       Protocol
	Balance        Balance
	// Passthrough is for TLS connections of clients that are handed on as they are.
	Passthrough bool
	// Upstream is in tls.go.
	Upstream Upstream
	// ServiceAddress sends to the address of the Service in the place of those of its pods.
	ServiceAddress bool
	// Stream is for what is no request.
	Stream Stream
	// ProxyProtocol begins each connection with who the client is. It is for Passthrough and Stream.
	ProxyProtocol ProxyProtocol
}

// A Stream is what is handed on as it is.
type Stream uint8

// The kinds of streams.
const (
	NoStream    Stream = iota
	Connections        // TCP
	Datagrams          // UDP
)

// String is "tcp" or "udp".
func (s Stream) String() string { return [...]string{"", "tcp", "udp"}[s] }

// ProxyProtocol is a version of the PROXY protocol (haproxy.org, proxy-protocol.txt).
type ProxyProtocol uint8

// The versions.
const (
	NoProxy ProxyProtocol = iota
	ProxyV1
	ProxyV2
)

// String lists what is not the default: ";connect=5s;protocol=h2c". It is empty for the zero value.
func (b Backend) String() string {
	var out strings.Builder
	if b.ConnectTimeout != 0 {
		out.WriteString(";connect=" + b.ConnectTimeout.String())
	}
	if b.Protocol != HTTP {
		out.WriteString(";protocol=" + b.Protocol.String())
	}
	if b.Balance != LeastRequest {
		out.WriteString(";balance=" + b.Balance.String())
	}
	if b.Passthrough {
		out.WriteString(";passthrough")
	}
	out.WriteString(b.Upstream.String())
	if b.ServiceAddress {
		out.WriteString(";service-address")
	}
	if b.Stream != NoStream {
		out.WriteString(";" + b.Stream.String())
	}
	if b.ProxyProtocol != NoProxy {
		out.WriteString(";proxy=v" + strconv.Itoa(int(b.ProxyProtocol)))
	}
	return out.String()
}

// String lists what is not the default, for people: "rewrite=/$2 idle=1h0m0s". Each setting has a word.
func (r *Route) String() string {
	if r == nil {
		return ""
	}
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+"="+value)
		}
	}
	add("rewrite", r.Rewrite)
	add("host", r.HostHeader)
	add("redirect", r.Redirect.String())
	if r.Idle != 0 {
		add("idle", r.Idle.String())
	}
	if r.MaxBody != 0 {
		add("body", strconv.FormatUint(r.MaxBody, 10))
	}
	add("allow", prefixes(r.Sources.Allow))
	add("deny", prefixes(r.Sources.Deny))
	if r.SatisfyAny {
		add("satisfy", "any")
	}
	add("cors", r.CORS.String())
	add("request", headersText(r.RequestHeaders))
	add("response", headersText(r.ResponseHeaders))
	add("answer", r.Answer.String())
	add("session", r.Session.String())
	add("limits", r.Limits.String())
	add("hash", hashText(r.Hash))
	add("retry", r.Retry.String())
	add("answers", r.Answers.String())
	if r.Quiet {
		add("log", "off")
	}
	return strings.Join(words, " ")
}

func prefixes(list []netip.Prefix) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return strings.Join(out, ",")
}
