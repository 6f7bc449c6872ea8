package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"hythe.dev/hythe/gateway/auth"
)

// String is "exact", "prefix" or "regex".
func (m PathMatch) String() string { return [...]string{"exact", "prefix", "regex"}[m] }

// Target is what a Route leads to in words: the Backend, "redirect", or the status that is answered.
func (r Route) Target() string {
	switch {
	case r.Policy != nil && r.Policy.Redirect.Code != 0:
		return "redirect"
	case r.Backend != "":
		return r.Backend
	}
	return fmt.Sprintf("status %d", r.Status)
}

// String is the Config as people read it, without any key or certificate:
//
//	host shop.example.com certificate=shop/tls redirect
//	  exact  /health shop/web:http  shop/shop
//	  prefix /cart   shop/cart:http shop/shop
//	  prefix /       status 404
//	certificate shop/tls shop.example.com
//	endpoints shop/web:http 10.0.0.1:8080 10.0.0.2:8080
//
// Routes stand in the order in which they are tried, each with the Ingress that asked for it.
func (c Config) String() string {
	var b strings.Builder
	for _, h := range c.Hosts {
		writeHost(&b, h)
	}
	if text := c.Observe.String(); text != "" {
		b.WriteString("observe" + text + "\n")
	}
	if text := c.Listen.String(); text != "" {
		b.WriteString("listen" + text + "\n")
	}
	if text := c.Compression.String(); text != "" {
		b.WriteString("compress" + text + "\n")
	}
	for _, s := range c.Streams {
		b.WriteString("stream " + s.String() + "\n")
	}
	for _, cert := range c.Certificates {
		b.WriteString(words("certificate", cert.Name, cert.ServerNames...))
	}
	for _, t := range c.ClientTLS {
		b.WriteString(words("clients", fmt.Sprintf("authorities=%s depth=%d certificate=%s", t.Authorities, t.Depth, t.Certificate), t.ServerNames...))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Auth)) {
		b.WriteString(words("auth", name, authWords(c.Auth[name])...))
	}
	for _, p := range c.Passthroughs {
		b.WriteString(words("passthrough", p.ServerName, p.Backend, p.Origin.String()))
	}
	for _, backend := range c.Backends {
		if backend.Name != backend.Endpoints {
			b.WriteString(words("backend", backend.Name, "endpoints="+backend.Endpoints))
		}
		if text := backend.Pods.String(); text != "" {
			b.WriteString(words("pods", backend.Name, text))
		}
	}
	for _, set := range c.EndpointSets {
		addresses := make([]string, len(set.Addresses))
		for i, a := range set.Addresses {
			addresses[i] = a.String()
		}
		b.WriteString(words("endpoints", set.Name, addresses...))
	}
	return b.String()
}

func writeHost(b *strings.Builder, h Host) {
	b.WriteString("host " + h.Name + " certificate=" + h.Certificate)
	if h.RedirectHTTPS {
		b.WriteString(" redirect")
	}
	if h.Clients != nil {
		b.WriteString(" clients=" + h.Clients.String())
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 1, ' ', 0)
	for _, r := range h.Routes {
		line := fmt.Sprintf("  %s\t%s\t%s", r.Match, r.Path, r.Target())
		if r.Origin.Name != "" {
			line += "\t" + r.Origin.String()
		}
		if r.Plain {
			line += " plain"
		}
		if r.Canary != nil {
			line += " canary=" + r.Canary.Backend + " (" + r.Canary.String() + ")"
		}
		if r.Mirror != nil {
			line += " mirror=" + r.Mirror.Backend
		}
		if r.ErrorPages != nil {
			line += fmt.Sprintf(" errors=%v:%s", r.ErrorPages.Statuses, r.ErrorPages.Backend)
		}
		if r.BasicAuth != nil {
			line += " basic-auth"
		}
		if r.Auth != "" {
			line += " auth=" + r.Auth
		}
		if r.Policy != nil {
			line += " " + r.Policy.String()
		}
		fmt.Fprintln(w, line)
	}
	_ = w.Flush() // a strings.Builder does not fail
}

// authWords are what an Entry asks, without secrets.
func authWords(e auth.Entry) []string {
	var out []string
	if len(e.Users) > 0 {
		out = append(out, fmt.Sprintf("users=%d", len(e.Users)))
	}
	if e.Any {
		out = append(out, "any")
	}
	if e.Ask == nil {
		return out
	}
	out = append(out, e.Ask.URL())
	for _, t := range e.Ask.Targets {
		out = append(out, fmt.Sprintf("%s:%v%s", t.For, t.Addresses, t.Name))
	}
	return out
}

// words is a line of words.
func words(kind, name string, rest ...string) string {
	return strings.Join(append([]string{kind, name}, rest...), " ") + "\n"
}
