package authz

import (
	"net/http"
	"net/url"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"hythe.dev/hythe/gateway/policy"
)

// A request is what Envoy tells of one.
type request struct {
	method, scheme, host string
	uri                  string // path and query
	client               string // address
	header               http.Header
}

func newRequest(check *authv3.CheckRequest) *request {
	in := check.GetAttributes().GetRequest().GetHttp()
	r := &request{
		method: in.GetMethod(), scheme: "http", host: in.GetHost(), uri: in.GetPath(), header: http.Header{},
		client: check.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress(),
	}
	for _, h := range in.GetHeaderMap().GetHeaders() {
		value := string(h.GetRawValue())
		if value == "" {
			value = h.GetValue()
		}
		if !strings.HasPrefix(h.GetKey(), ":") {
			r.header.Add(h.GetKey(), value)
		}
	}
	if r.header.Get("X-Forwarded-Proto") == "https" { // Envoy's own word
		r.scheme = "https"
	}
	return r
}

// expand puts a pattern's parts together. answer is the auth server's; nil where there is none yet.
func (r *request) expand(p policy.Pattern, answer http.Header) string {
	var out strings.Builder
	for _, part := range p {
		out.WriteString(r.part(part, answer))
	}
	return out.String()
}

func (r *request) part(p policy.PatternPart, answer http.Header) string {
	path, query, _ := strings.Cut(r.uri, "?")
	switch p.Of {
	case policy.PartText:
		return p.Text
	case policy.PartHost:
		return r.host
	case policy.PartScheme:
		return r.scheme
	case policy.PartURI:
		return r.uri
	case policy.PartEscapedURI:
		return escape(r.uri, isUnreserved)
	case policy.PartPath:
		return path
	case policy.PartQuery:
		return query
	case policy.PartMethod:
		return r.method
	case policy.PartClient:
		return r.client
	case policy.PartHeader:
		return strings.Join(r.header.Values(p.Text), ", ")
	case policy.PartCookie:
		return r.cookie(p.Text)
	case policy.PartArgument:
		return argument(query, p.Text)
	case policy.PartAnswer:
		return answer.Get(p.Text)
	}
	return ""
}

// cookie is the value of the first cookie of a name, as it is written.
func (r *request) cookie(name string) string {
	for _, line := range r.header.Values("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			if n, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && n == name {
				return value
			}
		}
	}
	return ""
}

// argument is the value of the first parameter of a name, as it is written.
func argument(query, name string) string {
	for pair := range strings.SplitSeq(query, "&") {
		if n, value, ok := strings.Cut(pair, "="); ok && strings.EqualFold(n, name) {
			return value
		}
	}
	return ""
}

const hexDigits = "0123456789ABCDEF"

// escape writes %XX for all bytes that keep does not keep.
func escape(s string, keep func(c byte) bool) string {
	var out strings.Builder
	for i := range len(s) {
		if keep(s[i]) {
			out.WriteByte(s[i])
		} else {
			out.WriteByte('%')
			out.WriteByte(hexDigits[s[i]>>4])
			out.WriteByte(hexDigits[s[i]&15])
		}
	}
	return out.String()
}

// isUnreserved is for the value of a parameter (RFC 3986 section 2.3).
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.~", c) >= 0
}

// printable are bytes that may stand in the target of a request, or in a Location.
func printable(c byte) bool {
	return c > ' ' && c < 0x7f && c != '"' && c != '<' && c != '>' && c != '\\'
}

// target is a URI for a request line. It has no byte that could end the line.
func target(uri string) *url.URL {
	uri, _, _ = strings.Cut(uri, "#")
	uri = escape(uri, printable)
	path, query, has := strings.Cut(uri, "?")
	path = "/" + strings.TrimLeft(path, "/") // two would be a host's name
	return &url.URL{Opaque: path, RawQuery: query, ForceQuery: has && query == ""}
}
