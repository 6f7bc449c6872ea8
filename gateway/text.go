package gateway

import (
	"fmt"
	"strings"
	"text/tabwriter"
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
	for _, cert := range c.Certificates {
		b.WriteString(words("certificate", cert.Name, cert.ServerNames...))
	}
	for _, p := range c.Passthroughs {
		b.WriteString(words("passthrough", p.ServerName, p.Backend, p.Origin.String()))
	}
	for _, backend := range c.Backends {
		if backend.Name != backend.Endpoints {
			b.WriteString(words("backend", backend.Name, "endpoints="+backend.Endpoints))
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
		if r.BasicAuth != nil {
			line += " basic-auth"
		}
		if r.Policy != nil {
			line += " " + r.Policy.String()
		}
		fmt.Fprintln(w, line)
	}
	_ = w.Flush() // a strings.Builder does not fail
}

// words is a line of words.
func words(kind, name string, rest ...string) string {
	return strings.Join(append([]string{kind, name}, rest...), " ") + "\n"
}
