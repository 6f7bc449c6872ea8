package xds

import (
	"fmt"
	"net/netip"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// String is the configuration as people read it, a line for each thing, without secrets:
//
//	cluster shop/web:http endpoints=shop/web:http connect=1s
//	endpoints shop/web:http 10.0.0.1:8080
//	secret shop/tls
//	listener https 0.0.0.0:8443
//	  chain shop/tls shop.example.com
//	route table all
//	virtual host all/shop.example.com shop.example.com
//	  prefix /  hythe.tls is not fd12:…  ->  421
//	  below /cart  ->  shop/cart:http
//
// "below" is a prefix of whole path elements.
func (r *Resources) String() string {
	var b strings.Builder
	for _, kind := range Kinds() {
		for _, name := range r.Names(kind) {
			writeResource(&b, r.Get(kind, name))
		}
	}
	return b.String()
}

func writeResource(b *strings.Builder, r *Resource) {
	body, err := r.Body.UnmarshalNew()
	if err != nil {
		fmt.Fprintf(b, "%s %s: %v\n", r.Kind, r.Name, err)
		return
	}
	fmt.Fprintf(b, "%s %s", r.Kind, r.Name)
	switch m := body.(type) {
	case *clusterv3.Cluster:
		fmt.Fprintf(b, " endpoints=%s connect=%s", m.GetEdsClusterConfig().GetServiceName(), m.GetConnectTimeout().AsDuration())
	case *endpointv3.ClusterLoadAssignment:
		for _, locality := range m.GetEndpoints() {
			for _, e := range locality.GetLbEndpoints() {
				a := e.GetEndpoint().GetAddress().GetSocketAddress()
				fmt.Fprintf(b, " %s", socketAddress(a.GetAddress(), a.GetPortValue()))
			}
		}
	case *listenerv3.Listener:
		writeListener(b, m, r.Last)
	case *routev3.VirtualHost:
		fmt.Fprintf(b, " %s", strings.Join(m.GetDomains(), " "))
		for _, route := range m.GetRoutes() {
			fmt.Fprintf(b, "\n  %s", RouteText(route))
		}
	}
	b.WriteByte('\n')
}

func writeListener(b *strings.Builder, l *listenerv3.Listener, last bool) {
	a := l.GetAddress().GetSocketAddress()
	fmt.Fprintf(b, " %s", socketAddress(a.GetAddress(), a.GetPortValue()))
	if last {
		b.WriteString(" last")
	}
	for _, c := range l.GetFilterChains() {
		fmt.Fprintf(b, "\n  chain %s", c.GetName())
		for _, name := range c.GetFilterChainMatch().GetServerNames() {
			fmt.Fprintf(b, " %s", name)
		}
	}
	if c := l.GetDefaultFilterChain(); c != nil {
		fmt.Fprintf(b, "\n  chain %s for all others", c.GetName())
	}
}

func socketAddress(address string, port uint32) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Sprintf("%s:%d", address, port)
	}
	return netip.AddrPortFrom(ip, uint16(port)).String()
}

// RouteText is a route of a virtual host in one line, as String shows it.
func RouteText(r *routev3.Route) string {
	m := r.GetMatch()
	var words []string
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		words = append(words, "exact "+p.Path)
	case *routev3.RouteMatch_Prefix:
		words = append(words, "prefix "+p.Prefix)
	case *routev3.RouteMatch_PathSeparatedPrefix:
		words = append(words, "below "+p.PathSeparatedPrefix)
	case *routev3.RouteMatch_SafeRegex:
		words = append(words, "regex "+p.SafeRegex.GetRegex())
	}
	for _, h := range m.GetHeaders() {
		word := " is "
		if h.GetInvertMatch() {
			word = " is not "
		}
		words = append(words, h.GetName()+word+stringMatch(h.GetStringMatch()))
	}
	for _, c := range m.GetCookies() {
		words = append(words, "cookie "+c.GetName()+" is "+stringMatch(c.GetStringMatch()))
	}
	if share := m.GetRuntimeFraction().GetDefaultValue(); share != nil {
		words = append(words, fmt.Sprintf("%d of 1000000", share.GetNumerator()))
	}
	for _, s := range m.GetFilterState() {
		word := s.GetKey() + " is"
		if s.GetAddressMatch().GetInvertMatch() {
			word += " not"
		}
		for _, r := range s.GetAddressMatch().GetRanges() {
			word += " " + r.GetAddressPrefix()
		}
		words = append(words, word)
	}
	words = append(words, certificateWords(m.GetTlsContext())...)
	words = append(words, "->")
	switch a := r.GetAction().(type) {
	case *routev3.Route_Route:
		words = append(words, a.Route.GetCluster())
		words = append(words, actionWords(a.Route)...)
	case *routev3.Route_DirectResponse:
		words = append(words, strings.TrimSpace(fmt.Sprint(a.DirectResponse.GetStatus())+" "+RouteLocation(r)))
	case *routev3.Route_Redirect:
		words = append(words, redirectWords(a.Redirect))
	}
	words = append(words, filterWords(r)...)
	return strings.Join(words, "  ")
}

func stringMatch(m *matcherv3.StringMatcher) string {
	if m.GetSafeRegex() == nil {
		return m.GetExact()
	}
	return "/" + m.GetSafeRegex().GetRegex() + "/"
}
