package follow

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/xds"
)

// Hosts compares all hosts, by name. It needs listeners, hosts and certificates.
func Hosts(config *dump.Config, want Want) []inspect.HostAnswer {
	have := virtualHosts(config)
	var out []inspect.HostAnswer
	for _, name := range want.hostNames(have) {
		objects := ingresses(want.host(name))
		v := have[name]
		a := inspect.HostAnswer{
			Host: name, Certificate: certificateOf(config, name), RedirectHTTPS: redirects(v.host),
			Routes: len(routesOf(v.host)), Ingresses: objects, Since: want.newest(objects),
			Envoy: want.compareHost(xds.HostResource(name), v.host, v.updated),
		}
		if c := config.Certificate(a.Certificate); c != nil && len(c.Chain) > 0 {
			a.NotAfter = c.Chain[0].NotAfter
		}
		out = append(out, a)
	}
	return out
}

// Routes compares the paths of one host, or of all if it is empty. It needs listeners, hosts, clusters and certificates.
func Routes(config *dump.Config, want Want, host string) []inspect.RouteAnswer {
	have := virtualHosts(config)
	clusters := map[string]*dump.Cluster{}
	for i := range config.Clusters {
		clusters[config.Clusters[i].Name] = &config.Clusters[i]
	}
	wanted := map[string]int{}
	for _, b := range want.Config.Backends {
		i, ok := slices.BinarySearchFunc(want.Config.EndpointSets, b.Endpoints,
			func(s gateway.EndpointSet, name string) int { return cmp.Compare(s.Name, name) })
		if ok {
			wanted[b.Name] = len(want.Config.EndpointSets[i].Addresses)
		}
	}
	var out []inspect.RouteAnswer
	for _, name := range want.hostNames(have) {
		if host != "" && host != name {
			continue
		}
		v := have[name]
		common := inspect.RouteAnswer{
			Host: name, TLS: certificateOf(config, name),
			Envoy: want.compareHost(xds.HostResource(name), v.host, v.updated),
		}
		if c := config.Certificate(common.TLS); c != nil && len(c.Chain) > 0 {
			common.NotAfter = c.Chain[0].NotAfter
		}
		rows := routesOf(v.host)
		if v.host == nil {
			rows = want.routesOf(name)
		}
		for _, r := range rows {
			out = append(out, want.fill(common, r, clusters[r.Backend], wanted[r.Backend]))
		}
	}
	return out
}

// fill joins what all paths of a host have in common with one path.
func (w Want) fill(common, r inspect.RouteAnswer, cluster *dump.Cluster, wanted int) inspect.RouteAnswer {
	r.Host, r.TLS, r.NotAfter, r.Envoy = common.Host, common.TLS, common.NotAfter, common.Envoy
	r.Since = w.since(r.Ingress)
	r.Wanted = wanted
	if cluster == nil {
		return r
	}
	r.Total = len(cluster.Endpoints)
	for _, e := range cluster.Endpoints {
		if e.Healthy {
			r.Ready++
		}
	}
	return r
}

// Certificates compares all certificates, by name. It needs listeners and certificates.
func Certificates(config *dump.Config, want Want) []inspect.CertificateAnswer {
	names := map[string][]string{}
	for _, c := range config.Certificates {
		names[c.Name] = nil
	}
	for _, c := range want.Config.Certificates {
		if want.Resources == nil || want.Resources.Get(xds.Secret, c.Name) != nil { // those for clients have other names
			names[c.Name] = nil
		}
	}
	for _, l := range config.Listeners {
		for _, c := range l.Body.GetFilterChains() {
			if name := certificateName(c); name != "" {
				names[name] = append(names[name], c.GetFilterChainMatch().GetServerNames()...)
				slices.Sort(names[name]) // chains for some source addresses have the names again
				names[name] = slices.Compact(names[name])
			}
		}
	}
	var out []inspect.CertificateAnswer
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, want.certificate(name, names[name], config.Certificate(name)))
	}
	return out
}

func (w Want) certificate(name string, serverNames []string, have *dump.Certificate) inspect.CertificateAnswer {
	out := inspect.CertificateAnswer{Name: name, ServerNames: serverNames, Secret: secretRef(name)}
	out.Since = w.since(out.Secret)
	version, updated := "", time.Time{}
	if have != nil {
		version, updated = have.Version, have.Updated
	}
	out.Envoy = w.compareVersion(xds.Secret, name, version, updated)
	if have == nil || len(have.Chain) == 0 {
		return out
	}
	c := have.Chain[0]
	out.Subject, out.Issuer, out.DNSNames = c.Subject.String(), c.Issuer.String(), c.DNSNames
	out.NotBefore, out.NotAfter, out.Fingerprint = c.NotBefore, c.NotAfter, fingerprint(c)
	out.Problems = certificateProblems(c, w.Now, "")
	for _, host := range serverNames {
		if !covers(c, host) {
			out.Problems = append(out.Problems, "not valid for "+host)
		}
	}
	return out
}

// A virtual is a virtual host with the time of its table.
type virtual struct {
	host    *routev3.VirtualHost
	updated time.Time
}

// virtualHosts are those that Envoy has, by the name of the gateway.Host.
func virtualHosts(config *dump.Config) map[string]virtual {
	out := map[string]virtual{}
	for _, t := range config.Tables {
		for _, h := range t.Hosts {
			out[xds.HostName(h.GetName())] = virtual{h, t.Updated}
		}
	}
	return out
}

// hostNames are those that Envoy has or should have.
func (w Want) hostNames(have map[string]virtual) []string {
	names := map[string]bool{}
	for name := range have {
		names[name] = true
	}
	if w.Resources != nil {
		for _, name := range w.Resources.Names(xds.VirtualHost) {
			names[xds.HostName(name)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// certificateOf is the name of the certificate that Envoy takes for a host.
func certificateOf(config *dump.Config, host string) string {
	if l := config.Listener("https"); l != nil && l.Body != nil {
		return servedWith(l.Body, host)
	}
	return ""
}

func servedWith(l *listenerv3.Listener, host string) string {
	if host == gateway.CatchAll {
		return certificateName(l.GetDefaultFilterChain())
	}
	return certificateName(chainFor(l, host, netip.Addr{}))
}

// redirects says whether a host redirects all of plain http but what is exempted.
func redirects(h *routev3.VirtualHost) bool {
	return slices.ContainsFunc(h.GetRoutes(), func(r *routev3.Route) bool {
		return r.GetRedirect().GetHttpsRedirect() && r.GetMatch().GetPrefix() == "/"
	})
}

// routesOf are the paths that an Ingress asked for, and the final 404: not redirects, 421, nor what a wildcard host has
// for names that are not its own.
func routesOf(h *routev3.VirtualHost) []inspect.RouteAnswer {
	var out []inspect.RouteAnswer
	for _, r := range h.GetRoutes() {
		m := r.GetMatch()
		if r.GetRedirect().GetHttpsRedirect() || len(m.GetFilterState()) > 0 || len(m.GetHeaders()) > 0 ||
			len(m.GetCookies()) > 0 || m.GetRuntimeFraction() != nil {
			continue
		}
		a := inspect.RouteAnswer{
			PathType: "Prefix", Backend: r.GetRoute().GetCluster(), Status: r.GetDirectResponse().GetStatus(),
		}
		switch p := m.GetPathSpecifier().(type) {
		case *routev3.RouteMatch_Path:
			a.Path, a.PathType = p.Path, "Exact"
		case *routev3.RouteMatch_SafeRegex:
			a.Path, a.PathType = p.SafeRegex.GetRegex(), "Regex"
		case *routev3.RouteMatch_Prefix:
			a.Path = p.Prefix
		case *routev3.RouteMatch_PathSeparatedPrefix:
			a.Path = p.PathSeparatedPrefix
		}
		if redirect := r.GetRedirect(); redirect != nil {
			a.Status = uint32(redirectStatus(redirect))
		}
		if key, ok := xds.RouteOrigin(r.GetName()); ok {
			a.Ingress = model.Ref("Ingress", key)
		}
		out = append(out, a)
	}
	return out
}

// routesOf are the paths of a host that Envoy does not have yet.
func (w Want) routesOf(name string) []inspect.RouteAnswer {
	var out []inspect.RouteAnswer
	h := w.host(name)
	if h == nil {
		return nil
	}
	for _, r := range h.Routes {
		a := inspect.RouteAnswer{Path: r.Path, PathType: "Prefix", Backend: r.Backend, Status: r.Status}
		if r.Policy != nil && r.Policy.Redirect.Code != 0 {
			a.Status = uint32(r.Policy.Redirect.Code)
		}
		switch r.Match {
		case gateway.Exact:
			a.PathType = "Exact"
		case gateway.Regex:
			a.PathType = "Regex"
		}
		if r.Origin.Name != "" {
			a.Ingress = model.Ref("Ingress", r.Origin)
		}
		out = append(out, a)
	}
	return out
}
