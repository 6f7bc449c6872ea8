package xds

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// withCORS puts before the routes of a gateway.Route that which answers OPTIONS, and where only some origins are allowed
// the routes of requests that come from these: their answers have more headers. Envoy's own filter would set the headers
// of preflights only, and ingress-nginx sets them all, always.
func (b *builder) withCORS(r gateway.Route, served []*routev3.Route) []*routev3.Route {
	if r.Policy == nil || !r.Policy.CORS.Enabled {
		return served
	}
	c := r.Policy.CORS
	headers := append(append([]policy.Header(nil), r.Policy.ResponseHeaders...), corsHeaders(c)...)
	preflight := route(r)
	preflight.Action = direct(204)
	if s := sourcesOf(r); !s.Empty() {
		b.enable(preflight, filterSources, onlyFrom(s))
	}
	headerIs(":method", exactly("OPTIONS"))(preflight.Match)
	b.changeHeaders(preflight, nil, headers)
	if c.AnyOrigin {
		for _, s := range served {
			b.changeHeaders(s, requestHeaders(r), headers)
		}
		return append([]*routev3.Route{preflight}, served...)
	}
	var out []*routev3.Route
	for _, some := range bySize(c.Origins, mostOfExpressions) {
		allowed := headerIs("origin", fullMatch(strings.Join(some, "|")))
		first := proto.CloneOf(preflight)
		allowed(first.Match)
		out = append(out, first)
		for _, s := range served {
			from := proto.CloneOf(s)
			allowed(from.Match)
			b.changeHeaders(from, requestHeaders(r), headers)
			out = append(out, from)
		}
	}
	return append(out, served...)
}

// mostOfExpressions is how many bytes of literals stand in one expression: Envoy takes programs of 2,000 instructions.
const mostOfExpressions = 1200

// bySize divides a list of texts, in its order, so that each part has at most so many bytes, or one text.
func bySize(list []string, most int) [][]string {
	var out [][]string
	size := 0
	for _, text := range list {
		if size += len(text); len(out) == 0 || size > most {
			out, size = append(out, nil), len(text)
		}
		out[len(out)-1] = append(out[len(out)-1], text)
	}
	return out
}

func corsHeaders(c policy.CORS) []policy.Header {
	var out []policy.Header
	add := func(name, value string) {
		if value != "" {
			out = append(out, policy.Header{Name: name, Value: policy.Literal(value)})
		}
	}
	if c.AnyOrigin {
		add("Access-Control-Allow-Origin", "*")
	} else {
		out = append(out,
			policy.Header{Name: "Access-Control-Allow-Origin", Value: []policy.HeaderPart{{Of: policy.HeaderRequest, Text: "origin"}}},
			policy.Header{Name: "Vary", Value: policy.Literal("Origin"), Add: true})
	}
	if c.Credentials {
		add("Access-Control-Allow-Credentials", "true")
	}
	add("Access-Control-Allow-Methods", c.Methods)
	add("Access-Control-Allow-Headers", c.Headers)
	add("Access-Control-Expose-Headers", c.Expose)
	add("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge.Seconds())))
	return out
}
