package follow

import (
	"cmp"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"hythe.dev/hythe/xds"
)

// canonicalHost is a Host header as virtual hosts see it.
func canonicalHost(host string) string { return strings.ToLower(strippedHost(host)) }

// strippedHost is a Host header as strip_any_host_port and strip_trailing_host_dot leave it.
func strippedHost(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && isDigits(port) {
		host = name
	}
	return strings.TrimSuffix(host, ".")
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// escapedSlash is what path_with_escaped_slashes_action looks for.
var escapedSlash = regexp.MustCompile(`(?i)%(2f|5c)`)

// dotParameter is a dot segment with a parameter (RFC 3986 section 3.3), which normalize_path takes for a dot segment.
var dotParameter = regexp.MustCompile(`/(\.\.?);[^/]*`)

// canonicalPath is a path as normalize_path and merge_slashes leave it. redirect says that Envoy answers 307 to it.
func canonicalPath(path string) (out string, redirect bool) {
	redirect = escapedSlash.MatchString(path)
	path = escapedSlash.ReplaceAllStringFunc(path, func(s string) string {
		if strings.EqualFold(s, "%2f") {
			return "/"
		}
		return `\`
	})
	path = dotParameter.ReplaceAllString(path, "/$1") // but not where the dots are escaped
	path = strings.ReplaceAll(xds.CanonicalPath(path), `\`, "/")
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var kept []string
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".":
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, s)
			continue
		}
		if last {
			kept = append(kept, "") // it named a folder
		}
	}
	return mergeSlashes("/" + strings.Join(kept, "/")), redirect
}

// mergeSlashes makes one slash of several, but for a path of nothing else, of which Envoy leaves two.
func mergeSlashes(path string) string {
	if len(path) > 1 && strings.Trim(path, "/") == "" {
		return "//"
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// chainFor is the filter chain that Envoy takes for a server name: the exact one, that of the longest wildcard, the
// one without a name, the default one. Nil if there is none. Chains for some source addresses are taken for a client of these.
func chainFor(l *listenerv3.Listener, serverName string, client netip.Addr) *listenerv3.FilterChain {
	serverName = strings.ToLower(serverName)
	byName := map[string]*listenerv3.FilterChain{}
	chains := l.GetFilterChains()
	bySource := func(c *listenerv3.FilterChain) int { return len(c.GetFilterChainMatch().GetSourcePrefixRanges()) }
	chains = slices.DeleteFunc(slices.Clone(chains), func(c *listenerv3.FilterChain) bool { return bySource(c) > 0 && !fromSource(c, client) })
	slices.SortStableFunc(chains, func(a, b *listenerv3.FilterChain) int { return cmp.Compare(bySource(a), bySource(b)) })
	for _, c := range chains {
		for _, name := range c.GetFilterChainMatch().GetServerNames() {
			byName[name] = c
		}
		if len(c.GetFilterChainMatch().GetServerNames()) == 0 {
			byName[""] = c
		}
	}
	if c := byName[serverName]; c != nil {
		return c
	}
	for rest := serverName; rest != ""; {
		_, rest, _ = strings.Cut(rest, ".")
		if c := byName["*."+rest]; c != nil && rest != "" {
			return c
		}
	}
	if c := byName[""]; c != nil {
		return c
	}
	return l.GetDefaultFilterChain()
}

// fromSource says whether a chain is for connections of the client.
func fromSource(c *listenerv3.FilterChain, client netip.Addr) bool {
	return client.IsValid() && addressMatches(&matcherv3.AddressMatcher{Ranges: ranges(c)}, client)
}

func ranges(c *listenerv3.FilterChain) []*xdscorev3.CidrRange {
	var out []*xdscorev3.CidrRange
	for _, r := range c.GetFilterChainMatch().GetSourcePrefixRanges() {
		out = append(out, &xdscorev3.CidrRange{AddressPrefix: r.GetAddressPrefix(), PrefixLen: r.GetPrefixLen()})
	}
	return out
}

// A chain is what matters of a filter chain.
type chain struct {
	tls bool
	// certificate is the name of its Secret resource.
	certificate string
	manager     *hcmv3.HttpConnectionManager
	refuses     []*matcherv3.StringMatcher // paths that are answered 403
	state       map[string]netip.Addr      // filter state that it sets
	headers     map[string]string          // that it gives to requests
}

func readChain(c *listenerv3.FilterChain) chain {
	out := chain{tls: c.GetTransportSocket() != nil, certificate: certificateName(c), state: map[string]netip.Addr{}}
	for _, f := range c.GetFilters() {
		m, err := f.GetTypedConfig().UnmarshalNew()
		if err != nil {
			continue
		}
		switch m := m.(type) {
		case *hcmv3.HttpConnectionManager:
			out.manager, out.refuses = m, refusedPaths(m)
		case *setstatev3.Config:
			for _, v := range m.GetOnNewConnection() {
				text := v.GetFormatString().GetTextFormatSource().GetInlineString()
				if a, err := netip.ParseAddr(text); err == nil {
					out.state[v.GetObjectKey()] = a
				}
			}
		}
	}
	return out
}

// refusedPaths are those of the RBAC filter that package xds makes.
func refusedPaths(m *hcmv3.HttpConnectionManager) []*matcherv3.StringMatcher {
	var out []*matcherv3.StringMatcher
	for _, f := range m.GetHttpFilters() {
		var rbac rbacv3.RBAC
		if f.GetTypedConfig().UnmarshalTo(&rbac) != nil || rbac.GetRules().GetAction() != rbacconfigv3.RBAC_DENY {
			continue
		}
		for _, p := range rbac.GetRules().GetPolicies() {
			for _, permission := range p.GetPermissions() {
				out = append(out, permission.GetUrlPath().GetPath())
			}
		}
	}
	return out
}

// refused says whether a path, without a query, is answered 403.
func (c chain) refused(path string) bool {
	return slices.ContainsFunc(c.refuses, func(m *matcherv3.StringMatcher) bool {
		part := strings.ToLower(m.GetContains()) // ignore_case
		return part != "" && strings.Contains(strings.ToLower(path), part)
	})
}

// certificateName is the name of the Secret resource that a filter chain serves; empty for plain http.
func certificateName(c *listenerv3.FilterChain) string {
	var context tlsv3.DownstreamTlsContext
	if c.GetTransportSocket().GetTypedConfig().UnmarshalTo(&context) != nil {
		return ""
	}
	for _, s := range context.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs() {
		return s.GetName()
	}
	return ""
}

// hostFor is the virtual host that Envoy takes: the exact one, that of the longest wildcard, the one for all.
func hostFor(hosts []*routev3.VirtualHost, host string) *routev3.VirtualHost {
	var best *routev3.VirtualHost
	length := -1
	for _, h := range hosts {
		for _, domain := range h.GetDomains() {
			suffix, wild := strings.CutPrefix(strings.ToLower(domain), "*")
			switch {
			case !wild && suffix == host:
				return h
			case wild && len(suffix) > length && strings.HasSuffix(host, suffix) && (suffix == "" || len(host) > len(suffix)):
				best, length = h, len(suffix)
			}
		}
	}
	return best
}

// seen is a request as Envoy's routes see it.
type seen struct {
	path    string
	headers map[string]string
	state   map[string]netip.Addr
	// certificate says that the client showed a valid one.
	certificate bool
}

// routeFor is the first route that matches, or nil.
func routeFor(h *routev3.VirtualHost, s seen) *routev3.Route {
	i := slices.IndexFunc(h.GetRoutes(), func(r *routev3.Route) bool { return s.matches(r.GetMatch()) })
	if i < 0 {
		return nil
	}
	return h.GetRoutes()[i]
}

func (s seen) matches(m *routev3.RouteMatch) bool {
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		if s.path != p.Path {
			return false
		}
	case *routev3.RouteMatch_Prefix:
		if !strings.HasPrefix(s.path, p.Prefix) {
			return false
		}
	case *routev3.RouteMatch_SafeRegex:
		if !fullMatch(p.SafeRegex.GetRegex(), s.path) {
			return false
		}
	case *routev3.RouteMatch_PathSeparatedPrefix:
		rest, ok := strings.CutPrefix(s.path, p.PathSeparatedPrefix)
		if !ok || rest != "" && rest[0] != '/' {
			return false
		}
	default:
		return false
	}
	for _, h := range m.GetHeaders() {
		value, ok := s.headers[h.GetName()]
		if !ok && !h.GetTreatMissingHeaderAsEmpty() || stringMatches(h.GetStringMatch(), value) == h.GetInvertMatch() {
			return false
		}
	}
	for _, c := range m.GetCookies() {
		value, ok := s.cookie(c.GetName())
		if !ok || stringMatches(c.GetStringMatch(), value) == c.GetInvertMatch() {
			return false
		}
	}
	if share := m.GetRuntimeFraction().GetDefaultValue(); share != nil && !whole(share) {
		return false // some requests come here, most of a canary's do not
	}
	if c := m.GetTlsContext(); c.GetPresented() != nil && c.GetPresented().GetValue() != s.certificate ||
		c.GetValidated() != nil && c.GetValidated().GetValue() != s.certificate {
		return false
	}
	for _, f := range m.GetFilterState() {
		addr, ok := s.state[f.GetKey()]
		if !ok || addressMatches(f.GetAddressMatch(), addr) == f.GetAddressMatch().GetInvertMatch() {
			return false
		}
	}
	return true
}

// cookie is the value of a cookie of the request.
func (s seen) cookie(name string) (string, bool) {
	list, _ := http.ParseCookie(s.headers["cookie"])
	for _, c := range list {
		if c.Name == name {
			return c.Value, true
		}
	}
	return "", false
}

// whole says whether a share is all requests.
func whole(share *typev3.FractionalPercent) bool {
	return share.GetDenominator() == typev3.FractionalPercent_MILLION && share.GetNumerator() >= 1_000_000
}

func stringMatches(m *matcherv3.StringMatcher, value string) bool {
	if m.GetSafeRegex() == nil {
		return m.GetExact() == value
	}
	return fullMatch(m.GetSafeRegex().GetRegex(), value)
}

// fullMatch is what Envoy does with a regular expression: both are RE2, and Envoy matches the whole value.
func fullMatch(regex, value string) bool {
	re, err := regexp.Compile("^(?:" + regex + ")$")
	return err == nil && re.MatchString(value)
}

func addressMatches(m *matcherv3.AddressMatcher, addr netip.Addr) bool {
	for _, r := range m.GetRanges() {
		prefix, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			continue
		}
		if p, err := prefix.Prefix(int(r.GetPrefixLen().GetValue())); err == nil && p.Contains(addr) {
			return true
		}
	}
	return false
}
