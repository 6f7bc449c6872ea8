package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// clientsPrefix begins the names of Secret resources by which clients' certificates are verified.
const clientsPrefix = "clients:"

// What pods are told of a client's certificate, in the headers of ingress-nginx. Those of requests are dropped: forgeable.
const (
	SubjectHeader     = "ssl-client-subject-dn" // in the form of RFC 2253; routes look at it
	verifyHeader      = "ssl-client-verify"
	issuerHeader      = "ssl-client-issuer-dn"
	certificateHeader = "ssl-client-cert"
)

// clientChainName names the chain of a ClientTLS. No Secret's name has a space.
func clientChainName(t gateway.ClientTLS) string {
	return fmt.Sprintf("clients of %s depth %d with %s", t.Authorities, t.Depth, t.Certificate)
}

// forClients parts the name of a Certificate from that of the Authorities in the names of Secret resources for clientChain. They
// are copies: Envoy refuses a pair, too, for which it has refused the authorities, and others may be served with that pair.
const forClients = " for clients of "

func clientPair(t gateway.ClientTLS) string { return t.Certificate + forClients + t.Authorities }

// CertificateName is the Name of the gateway.Certificate of a Secret resource.
func CertificateName(resource string) string {
	name, _, _ := strings.Cut(resource, forClients)
	return name
}

// addClients adds what clients' certificates are verified by, and keeps the ClientTLS for which Envoy has all: a listener waits
// for the Secrets of all its chains. The names of the others are on no chain, so their hosts answer 421.
func (b *builder) addClients(config gateway.Config) {
	for _, a := range config.Authorities {
		resource := b.few(&Resource{Kind: Secret, Name: clientsPrefix + a.Name, Objects: certificateObjects(a.Name)})
		b.contain(resource, "its hosts cannot be reached", func() {
			context := &tlsv3.CertificateValidationContext{TrustedCa: inlineBytes(a.Certificates)}
			if len(a.Revoked) > 0 {
				context.Crl = inlineBytes(a.Revoked)
			}
			b.add(resource, &tlsv3.Secret{Name: resource.Name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: context}})
		})
	}
	if len(config.ClientTLS) == 0 {
		return
	}
	pairs := map[string]gateway.Certificate{}
	for _, c := range config.Certificates {
		pairs[c.Name] = c
	}
	for _, t := range config.ClientTLS {
		pair := pairs[t.Certificate]
		pair.Name = clientPair(t)
		resource := b.few(&Resource{Kind: Secret, Name: pair.Name, Objects: certificateObjects(t.Certificate)})
		b.contain(resource, "its hosts cannot be reached", func() { b.add(resource, secret(pair)) })
		if b.get(Secret, pair.Name) != nil && b.get(Secret, clientsPrefix+t.Authorities) != nil {
			b.clients = append(b.clients, t)
		}
	}
}

// stampClients says which chains are for the hosts that ask for certificates: those of their own names alone. Another one's
// clients are verified by other authorities, or not at all.
func (b *builder) stampClients(config gateway.Config) {
	if len(config.ClientTLS) == 0 {
		return
	}
	hosts := map[string]bool{}
	for _, h := range config.Hosts {
		hosts[h.Name] = true
	}
	for _, t := range config.ClientTLS {
		chain := clientChainName(t)
		for _, name := range t.ServerNames {
			b.chains.byName[name] = chain
			host := name
			if _, parent, found := strings.Cut(name, "."); !hosts[name] && found {
				host = "*." + parent
			}
			b.chains.only[host] = append(b.chains.only[host], stamp(chain))
		}
	}
}

// listenerSecrets are the Secrets of the listener's chains. Envoy asks for no others, and would be waited for.
func (b *builder) listenerSecrets(certificates []gateway.Certificate) []string {
	var out []string
	for _, c := range certificates {
		out = append(out, c.Name)
	}
	for _, t := range b.clients {
		out = append(out, clientPair(t), clientsPrefix+t.Authorities)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// clientChains are the filter chains of b.clients, for names that no other has.
func (b *builder) clientChains(taken map[string]bool) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	for _, t := range b.clients {
		names := slices.DeleteFunc(slices.Clone(t.ServerNames), func(name string) bool { return taken[name] })
		for _, name := range names {
			taken[name] = true
		}
		if len(names) > 0 {
			out = append(out, b.clientChain(t, names))
		}
	}
	return out
}

// clientChain asks clients for a certificate. Handshakes succeed without a valid one, too, and routes decide, since clients
// are to be told by an answer of HTTP what is wrong. Sessions are not resumed: Envoy does not verify their certificates again.
func (b *builder) clientChain(t gateway.ClientTLS, names []string) *listenerv3.FilterChain {
	chain := clientChainName(t)
	context := b.tlsContext(clientPair(t))
	context.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
	context.DisableStatefulSessionResumption = true
	context.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{
				TrustChainVerification: tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
				MaxVerifyDepth:         wrapperspb.UInt32(t.Depth + 1), // nginx does not count the trusted one
			},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: clientsPrefix + t.Authorities, SdsConfig: ads()},
		},
	}
	manager := b.manager("https", b.hsts(t.Certificate)...)
	manager.EarlyHeaderMutationExtensions = b.dropForgeable(
		headerOf(SubjectHeader, "%DOWNSTREAM_PEER_SUBJECT%"), headerOf(issuerHeader, "%DOWNSTREAM_PEER_ISSUER%"))
	return &listenerv3.FilterChain{
		Name:                          chain,
		FilterChainMatch:              &listenerv3.FilterChainMatch{ServerNames: names},
		TransportSocketConnectTimeout: durationpb.New(5 * time.Second),
		TransportSocket: &corev3.TransportSocket{
			Name:       "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(context)},
		},
		Filters: append(b.stateOf(stampValue(chain)), b.managerFilter(manager)),
	}
}

func headerOf(name, format string) *rulesv3.HeaderMutation {
	return &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Append{Append: overwrite(name, format)}}
}

// clientRoutes are the routes of a host that is for clients with a certificate. Each route that serves something says which
// connections it takes; what none of them takes is refused at the end. Nothing is left to what a connection is not.
func (b *builder) clientRoutes(h gateway.Host) []*routev3.Route {
	out := b.overPlainHTTP(h)
	auth := *h.Clients
	h.Clients, h.RedirectHTTPS = nil, false
	served := b.hostRoutes(h)
	out = append(out, onlyWith(served, auth, true, true, "SUCCESS")...)
	// Whose name counts must show a certificate that names him, and that somebody vouches for.
	named := auth.Subject != ""
	if auth.Mode != policy.ClientRequired && !named {
		out = append(out, onlyWith(served, auth, false, false, "NONE")...)
	}
	if auth.Mode == policy.ClientUntrusted && !named {
		out = append(out, onlyWith(served, auth, true, false, "FAILED:unverified")...)
	}
	if named {
		other := &routev3.RouteMatch{PathSpecifier: anyPath()}
		if auth.Mode == policy.ClientRequired { // without one it is 400
			other.TlsContext = certificate(true, true)
		}
		out = append(out, &routev3.Route{Match: other, Action: direct(403)})
	}
	last := &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: anyPath()}, Action: direct(400)}
	if auth.ErrorPage.Code != 0 {
		redirectTo(last, gateway.Route{}, auth.ErrorPage)
	}
	return append(out, last)
}

// overPlainHTTP answers challenges of ACME, and nothing else but a redirect or 403.
func (b *builder) overPlainHTTP(h gateway.Host) []*routev3.Route {
	var out []*routev3.Route
	for _, r := range h.Routes {
		if !r.Challenge() {
			continue
		}
		own := b.routes(r)
		err := errors.Join(b.packErr, validateAll(own))
		if b.packErr = nil; err != nil {
			continue // hostRoutes tells
		}
		for _, route := range own {
			route.Match.Headers = append(route.Match.Headers, plainHTTP())
			out = append(out, route)
		}
	}
	rest := &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: anyPath(), Headers: []*routev3.HeaderMatcher{plainHTTP()}},
		Action: direct(403),
	}
	if h.RedirectHTTPS {
		rest = b.redirect(gateway.Route{Match: gateway.Prefix, Path: "/"})
	}
	return append(out, rest)
}

// onlyWith are copies of routes for connections with a certificate or without, which tell pods how its verification went.
func onlyWith(routes []*routev3.Route, auth policy.ClientAuth, presented, validated bool, word string) []*routev3.Route {
	out := make([]*routev3.Route, 0, len(routes))
	for _, r := range routes {
		r = proto.CloneOf(r)
		r.Match.TlsContext = certificate(presented, validated)
		if auth.Subject != "" && validated {
			r.Match.Headers = append(r.Match.Headers, &routev3.HeaderMatcher{
				Name:                 SubjectHeader,
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: fullMatch(auth.Subject)},
			})
		}
		r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, overwrite(verifyHeader, word))
		if presented && auth.PassCertificate {
			r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, overwrite(certificateHeader, "%DOWNSTREAM_PEER_CERT%"))
		}
		out = append(out, r)
	}
	return out
}

func certificate(presented, validated bool) *routev3.RouteMatch_TlsContextMatchOptions {
	return &routev3.RouteMatch_TlsContextMatchOptions{Presented: wrapperspb.Bool(presented), Validated: wrapperspb.Bool(validated)}
}

func anyPath() *routev3.RouteMatch_Prefix { return &routev3.RouteMatch_Prefix{Prefix: "/"} }

// plainHTTP matches requests that came in the clear. Envoy sets x-forwarded-proto itself, as use_remote_address is on.
func plainHTTP() *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: "x-forwarded-proto",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "http"},
		}},
	}
}

// certificateWords are a match on clients' certificates, for RouteText.
func certificateWords(m *routev3.RouteMatch_TlsContextMatchOptions) []string {
	switch {
	case m == nil:
		return nil
	case m.GetValidated().GetValue():
		return []string{"certificate verified"}
	case m.GetPresented().GetValue():
		return []string{"certificate not verified"}
	}
	return []string{"no certificate"}
}

// onlyStamps are the stamps of the chains that are for a host which asks for certificates.
func (t chainTable) onlyStamps(host string) []netip.Addr {
	out := slices.Clone(t.only[host])
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
