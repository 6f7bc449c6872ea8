package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Check says where a Config breaks the promises of its type. Build keeps them for every snapshot; tests of other
// packages that make Configs by hand may ask as well.
func Check(c Config) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	sorted(bad, "host", c.Hosts, func(h Host) string { return h.Name })
	sorted(bad, "certificate", c.Certificates, func(c Certificate) string { return c.Name })
	sorted(bad, "backend", c.Backends, func(b Backend) string { return b.Name })
	sorted(bad, "endpoint set", c.EndpointSets, func(s EndpointSet) string { return s.Name })

	certificates := map[string]bool{}
	serverNames := map[string]string{}
	for _, certificate := range c.Certificates {
		certificates[certificate.Name] = true
		for _, name := range certificate.ServerNames {
			if other, ok := serverNames[name]; ok {
				bad("server name %s has the certificates %s and %s", name, other, certificate.Name)
			}
			if name != strings.ToLower(name) {
				bad("server name %s is not lower case", name)
			}
			serverNames[name] = certificate.Name
		}
	}
	if !certificates[DefaultCertificateName] {
		bad("there is no default certificate")
	}
	authorities := map[string]bool{}
	for _, a := range c.Authorities {
		authorities[a.Name] = true
	}
	for _, t := range c.ClientTLS {
		if !certificates[t.Certificate] || !authorities[t.Authorities] {
			bad("clients of %v have the unknown certificate %q or authorities %q", t.ServerNames, t.Certificate, t.Authorities)
		}
		for _, name := range t.ServerNames {
			if other, ok := serverNames[name]; ok {
				bad("server name %s has the certificates %s and %s", name, other, t.Certificate)
			}
			serverNames[name] = t.Certificate
		}
	}
	used := map[string]bool{}
	for _, h := range c.Hosts {
		if h.Clients != nil && !authorities[h.Clients.Secret] {
			bad("host %s has the unknown authorities %q", h.Name, h.Clients.Secret)
		}
		if !certificates[h.Certificate] {
			bad("host %s has the unknown certificate %q", h.Name, h.Certificate)
		}
		checkRoutes(bad, h, used)
	}
	for _, p := range c.Passthroughs {
		used[p.Backend] = true
		if other, ok := serverNames[p.ServerName]; ok {
			bad("server name %s is passed through and has the certificate %s", p.ServerName, other)
		}
	}
	ports := map[string]bool{}
	for _, s := range c.Streams {
		used[s.Backend] = true
		if ports[s.Name()] {
			bad("port %s leads to two Services", s.Name())
		}
		ports[s.Name()] = true
	}
	checkUse(bad, c, used)
	return errors.Join(errs...)
}

func sorted[T any](bad func(string, ...any), kind string, list []T, name func(T) string) {
	for i := 1; i < len(list); i++ {
		if name(list[i-1]) >= name(list[i]) {
			bad("%s %q stands before %q", kind, name(list[i-1]), name(list[i]))
		}
	}
}

func checkRoutes(bad func(string, ...any), h Host, used map[string]bool) {
	if len(h.Routes) == 0 || h.Routes[len(h.Routes)-1].Match != Prefix || h.Routes[len(h.Routes)-1].Path != "/" {
		bad("host %s does not end with a route for everything", h.Name)
	}
	for i, r := range h.Routes {
		for _, name := range r.Backends() {
			used[name] = true
		}
		redirects := r.Policy != nil && r.Policy.Redirect.Code != 0
		if (r.Backend == "") == (r.Status == 0 && !redirects) || redirects && r.Status != 0 {
			bad("host %s: %s %s needs one of backend, status and redirect", h.Name, r.Match, r.Path)
		}
		if (r.Match == Regex) == (r.Pattern == "") {
			bad("host %s: %s %s has the pattern %q", h.Name, r.Match, r.Path, r.Pattern)
		}
		if !strings.HasPrefix(r.Path, "/") || r.Match == Prefix && r.Path != "/" && strings.HasSuffix(r.Path, "/") {
			bad("host %s: path %q of %s", h.Name, r.Path, r.Match)
		}
		if i == 0 {
			continue
		}
		last := h.Routes[i-1]
		if compareMatches(last.Match, last.Path, r.Match, r.Path) >= 0 {
			bad("host %s: %s %s stands before %s %s", h.Name, last.Match, last.Path, r.Match, r.Path)
		}
	}
}

func checkUse(bad func(string, ...any), c Config, used map[string]bool) {
	sets := map[string]bool{}
	for _, b := range c.Backends {
		if !used[b.Name] && b.Name != c.Observe.Tracing {
			bad("no route uses backend %s", b.Name)
		}
		delete(used, b.Name)
		sets[b.Endpoints] = true
	}
	for name := range used {
		bad("backend %s is missing", name)
	}
	for _, s := range c.EndpointSets {
		if !sets[s.Name] {
			bad("no backend uses endpoint set %s", s.Name)
		}
		delete(sets, s.Name)
		if !slices.IsSortedFunc(s.Addresses, netip.AddrPort.Compare) {
			bad("endpoint set %s is not sorted", s.Name)
		}
	}
	for name := range sets {
		bad("endpoint set %s is missing", name)
	}
}
