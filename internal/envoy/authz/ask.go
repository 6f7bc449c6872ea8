package authz

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/policy"
)

// An answer is what is kept of a server's.
type answer struct {
	status int
	header http.Header
}

// ask lets the server of an entry decide.
func (s *Server) ask(ctx context.Context, name string, version uint64, ask *auth.Ask, r *request) verdict {
	to := targetFor(ask.Targets, r.host)
	if to == nil {
		s.warn("nothing is known of the auth server for this host", name, nil)
		return closed(503)
	}
	k, cached := cacheKey(name, version, ask, to, r)
	now := s.options.Now()
	if cached {
		if a, ok := s.answers.get(k, now); ok {
			return verdictOf(ask, r, a)
		}
	}
	select {
	case s.asks <- struct{}{}:
		defer func() { <-s.asks }()
	default:
		s.warn("too many questions to auth servers are under way", name, nil)
		return closed(503)
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	a, err := s.doors.send(ctx, to, func(address string) *http.Request { return question(ctx, address, ask, to, r) })
	if err != nil {
		s.warn("the auth server does not answer", name, err)
		return closed(503)
	}
	a.header = keep(a.header, ask)
	if cached {
		if until := believed(ask.CacheFor, a.status); until > 0 {
			kept := answer{a.status, a.header.Clone()}
			kept.header.Del("Set-Cookie") // it is for one client, once
			s.answers.put(k, kept, size(kept), now.Add(until))
		}
	}
	return verdictOf(ask, r, a)
}

// targetFor finds where a host's auth server is: the host itself, the wildcard above it, or all.
func targetFor(targets []auth.Target, host string) *auth.Target {
	host = strings.ToLower(host)
	_, rest, _ := strings.Cut(host, ".")
	for _, name := range []string{host, "*." + rest, "*"} {
		if i := slices.IndexFunc(targets, func(t auth.Target) bool { return t.For == name }); i >= 0 {
			return &targets[i]
		}
	}
	return nil
}

// cacheKey is what an answer is remembered by; false where each request is asked.
func cacheKey(name string, version uint64, ask *auth.Ask, to *auth.Target, r *request) (key, bool) {
	value := r.expand(ask.CacheKey, nil)
	if value == "" {
		return key{}, false
	}
	h := sha256.New()
	for _, part := range []string{name, to.For, value} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		h.Write([]byte(part))
	}
	_ = binary.Write(h, binary.BigEndian, version)
	return key(h.Sum(nil)), true
}

// believed is how long an answer of a status is.
func believed(times []policy.CacheTime, status int) time.Duration {
	for _, t := range times {
		if t.Status == status || t.Status == 0 && (status == 200 || status == 301 || status == 302) {
			return t.For
		}
	}
	return 0
}

// ownOfConnections are headers that no proxy hands on (RFC 9110 section 7.6.1), and those of bodies: there is none.
var ownOfConnections = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding",
	"Upgrade", "Content-Length", "Expect", "Host", "Http2-Settings",
}

// question is the request to the server, as nginx makes it.
func question(ctx context.Context, address string, ask *auth.Ask, to *auth.Target, r *request) *http.Request {
	scheme, method := "http", ask.Method
	if to.TLS {
		scheme = "https"
	}
	if method == "" {
		method = http.MethodGet
	}
	u := target(r.expand(ask.URI, nil))
	u.Scheme, u.Host = scheme, address
	req := &http.Request{Method: method, URL: u, Host: to.Host, Header: r.header.Clone(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if req.Host == "" {
		req.Host = r.host
	}
	for _, line := range r.header.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			req.Header.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range ownOfConnections {
		req.Header.Del(name)
	}
	for name := range req.Header {
		if to.Public != "" && strings.HasPrefix(name, "Ssl-Client-") { // of this host's authority, which is not theirs
			delete(req.Header, name)
		}
		if strings.HasPrefix(name, "X-Envoy-") || strings.HasPrefix(name, "X-Hythe-") || strings.HasPrefix(name, "X-Forwarded-") {
			delete(req.Header, name)
		}
	}
	set := req.Header.Set
	if req.Header.Get("User-Agent") == "" {
		set("User-Agent", "") // not Go's
	}
	set("X-Original-Url", r.scheme+"://"+r.host+r.uri)
	set("X-Original-Method", r.method)
	set("X-Sent-From", "nginx-ingress-controller")
	set("X-Real-Ip", r.client)
	set("X-Forwarded-For", r.client)
	set("X-Auth-Request-Redirect", r.uri)
	if len(ask.Redirect) > 0 {
		set("X-Auth-Request-Redirect", line(r.expand(ask.Redirect, nil)))
	}
	if ask.Method != "" {
		set("X-Original-Uri", r.uri)
		set("X-Scheme", r.scheme)
	}
	if to.Public != "" { // what the gateway itself tells servers behind it
		set("X-Forwarded-Proto", to.Public)
		set("X-Forwarded-Host", req.Host)
		set("X-Scheme", to.Public)
	}
	for _, h := range ask.Headers {
		if req.Header.Del(h.Name); len(h.Value) > 0 {
			set(h.Name, line(r.expand(h.Value, nil)))
		}
	}
	return req.WithContext(ctx)
}

// line makes a value fit for one line.
func line(value string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, value)
}

// keep selects the headers of an answer that anything is done with.
func keep(h http.Header, ask *auth.Ask) http.Header {
	out := http.Header{}
	take := func(name string) {
		if name = http.CanonicalHeaderKey(name); len(h[name]) > 0 {
			out[name] = h[name]
		}
	}
	take("Set-Cookie")
	take("Www-Authenticate")
	for _, c := range ask.Copy {
		take(c.From)
	}
	for _, p := range ask.SignIn {
		if p.Of == policy.PartAnswer {
			take(p.Text)
		}
	}
	return out
}

func size(a answer) int {
	out := 200
	for name, values := range a.header {
		out += len(name)
		for _, v := range values {
			out += len(v)
		}
	}
	return out
}

// verdictOf is what an answer means: 2xx lets in; 401 and 403 are what they are; all else is no answer that can be understood
// (https://nginx.org/en/docs/http/ngx_http_auth_request_module.html).
func verdictOf(ask *auth.Ask, r *request, a answer) verdict {
	var cookies []header
	for _, c := range a.header.Values("Set-Cookie") {
		cookies = append(cookies, header{"Set-Cookie", c})
	}
	switch {
	case a.status >= 200 && a.status < 300:
		v := verdict{ok: true, answer: cookies}
		for _, c := range ask.Copy {
			if values := a.header.Values(c.From); len(values) > 0 && values[0] != "" {
				v.set = append(v.set, header{c.To, strings.Join(values, ", ")})
			} else {
				v.remove = append(v.remove, strings.ToLower(c.To))
			}
		}
		return v
	case a.status == 401 && len(ask.SignIn) > 0:
		v := closed(302)
		page := escape(r.expand(ask.SignIn, a.header), printable)
		v.answer = append([]header{{"Location", page}}, cookies...)
		return v
	case a.status == 401:
		v := closed(401)
		for _, c := range a.header.Values("Www-Authenticate") {
			v.answer = append(v.answer, header{"WWW-Authenticate", c})
		}
		return v
	case a.status == 403:
		return closed(403)
	}
	return closed(500)
}
