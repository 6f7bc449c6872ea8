package xds

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/sni/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_selectors/on_demand_secret/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/gateway"
)

const (
	// sharedChain is the filter chain of hosts beyond Settings.OwnChains. No Secret's name has a space.
	sharedChain = "shared by hosts"
	// reservedChain has server names that must not be asked of the shared chain.
	reservedChain = "no hosts"
	// serverNameHeader has the server name of the connection (RFC 6066 section 3) after "=", on the shared chain alone, and
	// sameNameHeader whether it is the host of the request. Pods do not see them.
	serverNameHeader = "x-hythe-server-name"
	sameNameHeader   = "x-hythe-same-name"
	// noName is what the key pair for clients that name nothing is asked for by. Envoy never
	// answers who asks on demand for a Secret that it has for another chain.
	noName = "-"
	// mostNames is how many server names a Certificate on the shared chain has at most: each of its hosts has a list of them.
	mostNames = 16
)

// divide parts the certificates into those that have a filter chain of their own, and those whose server names are
// served by the shared chain: what is youngest of those that need nothing of their own, as many as there are beyond the limit.
// So one more host leaves all chains as they are.
func (b *builder) divide(certificates []gateway.Certificate) (own, shared []gateway.Certificate) {
	limit := b.settings.OwnChains
	if limit < 0 || len(certificates)+len(b.clients)+b.passed <= limit {
		return certificates, nil
	}
	wild := wildcards(certificates, b.clients)
	for _, c := range certificates {
		if shareable(c, wild) {
			shared = append(shared, c)
		} else {
			own = append(own, c)
		}
	}
	slices.SortStableFunc(shared, func(a, b gateway.Certificate) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name))
	})
	room := min(max(0, limit-len(own)-len(b.clients)-b.passed), len(shared))
	own = append(own, shared[:room]...)
	slices.SortFunc(own, func(a, b gateway.Certificate) int { return strings.Compare(a.Name, b.Name) })
	return own, shared[room:]
}

// wildcards are the wildcard server names of chains that are never shared.
func wildcards(certificates []gateway.Certificate, clients []gateway.ClientTLS) map[string]bool {
	out := map[string]bool{}
	add := func(names []string) {
		for _, name := range names {
			if strings.HasPrefix(name, "*.") {
				out[name] = true
			}
		}
	}
	for _, c := range certificates {
		add(c.ServerNames)
	}
	for _, t := range clients {
		add(t.ServerNames)
	}
	return out
}

// shareable reports whether all of a certificate's connections may come to the shared chain: it has few names, all exact, and
// none that Envoy would give to a wildcard's chain. Random names below a wildcard would fill Envoy's memory there.
func shareable(c gateway.Certificate, wild map[string]bool) bool {
	if c.Name == gateway.DefaultCertificateName || len(c.ServerNames) == 0 || len(c.ServerNames) > mostNames {
		return false
	}
	for _, name := range c.ServerNames {
		if strings.Contains(name, "*") || name == "" {
			return false
		}
		for rest := name; rest != ""; {
			_, rest, _ = strings.Cut(rest, ".")
			if wild["*."+rest] {
				return false
			}
		}
	}
	return true
}

// showOnDemand says which key pair the shared chain shows for which server name. Names of own chains are among them, and all are
// there without a shared chain: a connection may be on its way to it when its host leaves it.
func (b *builder) showOnDemand() map[string]string {
	if last := b.last.out.onDemand; last != nil && !b.changes.certificates && !b.changes.names {
		return last
	}
	out := map[string]string{noName: gateway.DefaultCertificateName}
	for _, h := range b.config.Hosts {
		if !strings.HasPrefix(h.Name, "*") {
			out[h.Name] = gateway.DefaultCertificateName
			if b.get(Secret, h.Certificate) != nil {
				out[h.Name] = h.Certificate
			}
		}
	}
	for _, c := range b.now.certificates {
		for _, name := range c.ServerNames {
			if !strings.HasPrefix(name, "*") {
				out[name] = c.Name
			}
		}
	}
	return out
}

// sharedTLS is the chain that asks for the key pair of a connection's server name when the first client comes with that.
// Envoy does not resume sessions there, and refuses a chain that does not say so.
func (b *builder) sharedTLS() *listenerv3.FilterChain {
	chain := b.tlsChain(gateway.DefaultCertificateName)
	context := b.tlsContext(gateway.DefaultCertificateName)
	context.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
	context.DisableStatefulSessionResumption = true
	context.CommonTlsContext.TlsCertificateSdsSecretConfigs = nil
	context.CommonTlsContext.CustomTlsCertificateSelector = &corev3.TypedExtensionConfig{
		Name: "envoy.tls.certificate_selectors.on_demand_secret",
		TypedConfig: b.any(&ondemandv3.Config{
			ConfigSource: ads(),
			CertificateMapper: &corev3.TypedExtensionConfig{
				Name: "envoy.tls.certificate_mappers.sni", TypedConfig: b.any(&sniv3.SNI{DefaultValue: noName}),
			},
		}),
	}
	manager := b.manager("https", b.hstsWhere()...)
	manager.EarlyHeaderMutationExtensions = b.dropForgeable(
		headerOf(serverNameHeader, "=%REQUESTED_SERVER_NAME%"),
		headerOf(sameNameHeader, "%CEL(connection.requested_server_name in ['', request.host])%"))
	chain.Name = sharedChain
	chain.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(context)}
	chain.Filters = append(b.stateOf(stampValue(sharedChain)), b.managerFilter(manager))
	return chain
}

// reserved is a chain for server names that are names of Secret resources which are not for servers: the shared chain asks for
// what a client names, and Envoy would load it as a key pair for servers.
func (b *builder) reserved() *listenerv3.FilterChain {
	chain := b.tlsChain(gateway.DefaultCertificateName)
	chain.Name = reservedChain
	chain.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: b.now.reserved}
	return chain
}

// reservedNames are the server names of that chain.
func (b *builder) reservedNames() []string {
	var names []string
	add := func(name string) {
		if strings.Contains(name, ":") && b.get(Secret, name) != nil {
			names = append(names, name)
		}
	}
	for _, id := range b.now.small {
		if id.kind == Secret {
			add(id.name)
		}
	}
	for _, c := range b.now.certificates {
		add(c.Name)
	}
	slices.Sort(names)
	return append([]string{gateway.DefaultCertificateName}, slices.Compact(names)...)
}

// ownName matches requests that came over the shared chain with a server name of another certificate than the host's, and those
// that came over other chains; nil for hosts that are never there.
func (b *builder) ownName(host string) *routev3.HeaderMatcher {
	if expression := b.chains.ownName(host); expression != "" {
		return notNamed(serverNameHeader, expression)
	}
	return nil
}

// ownName is an expression for server names: a request for the host that comes over the shared chain with another one, or
// over another chain, is misdirected. Which of a host's names are on the shared chain does not matter, so that a host may move. It is
// empty for hosts that are never there.
func (t chainTable) ownName(host string) string {
	certificate := t.certificate(host)
	if len(t.only[host]) > 0 || strings.HasPrefix(certificate, passthroughName) {
		return ""
	}
	var names []string
	switch {
	case strings.HasPrefix(host, "*."):
		return `=[^.]+` + regexp.QuoteMeta(strings.TrimPrefix(host, "*"))
	case certificate == gateway.DefaultCertificateName:
		names = []string{host, noName, ""} // Envoy says one of these where there is none
	default:
		names = slices.Clone(t.names[certificate])
		if !slices.Contains(names, host) || len(names) > mostNames || len(bySize(names, mostOfExpressions)) > 1 {
			names = []string{host}
		}
	}
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name)
	}
	return "=(?:" + strings.Join(names, "|") + ")"
}

// ownNameRest is ownName of the catch-all.
func ownNameRest() *routev3.HeaderMatcher {
	return notNamed(sameNameHeader, "true")
}

// notNamed matches requests without a header, and those whose header is not of the expression.
func notNamed(header, expression string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name:                      header,
		InvertMatch:               true,
		TreatMissingHeaderAsEmpty: true,
		HeaderMatchSpecifier:      &routev3.HeaderMatcher_StringMatch{StringMatch: fullMatch(expression)},
	}
}

// hstsWhere is hsts for hosts that switch it on.
func (b *builder) hstsWhere() []*hcmv3.HttpFilter {
	out := b.hsts(sharedChain)
	for _, f := range out {
		f.Disabled = true
	}
	return out
}

// withHSTS switches the header on for a host with a certificate of its own, where it is not on anyway.
func (b *builder) withHSTS(host string) map[string]*anypb.Any {
	if b.settings.HSTS == "" || b.chains.certificate(host) == gateway.DefaultCertificateName {
		return nil
	}
	return map[string]*anypb.Any{filterHSTS: b.any(&mutationv3.HeaderMutationPerRoute{Mutations: &mutationv3.Mutations{}})}
}

// OnDemand returns the key pair for the server name of a client of the shared chain under just that name, nil if nobody's
// name is asked for. Envoy asks for the name as the client has written it.
func (r *Resources) OnDemand(name string) *Resource {
	return r.named(r.onDemand[strings.ToLower(name)], name)
}

// Known reports whether a server name is that of a host, so that their number has bounds.
func (r *Resources) Known(name string) bool {
	_, ok := r.onDemand[name]
	return ok
}

// Fallback returns the key pair for a server name that nobody has, under that name.
func (r *Resources) Fallback(name string) *Resource {
	return r.named(gateway.DefaultCertificateName, name)
}

// named is a copy of a Secret with another name; its Body still has the one before: see Rename.
func (r *Resources) named(secret, name string) *Resource {
	base := r.Get(Secret, secret)
	if base == nil {
		return nil
	}
	out := *base
	out.Name = name
	return &out
}

// Rename is the body of a Secret under another name.
func Rename(body *anypb.Any, name string) (*anypb.Any, error) {
	secret := new(tlsv3.Secret)
	if err := body.UnmarshalTo(secret); err != nil {
		return nil, err
	}
	if secret.GetName() == name {
		return body, nil
	}
	secret.Name = name
	return pack(secret)
}

// Shown is the Name of the gateway.Certificate that the shared chain shows for a server name.
func (r *Resources) Shown(name string) string {
	return cmp.Or(r.onDemand[strings.ToLower(name)], gateway.DefaultCertificateName)
}

// SharedHeaders are what routes are told of a connection by the filter chain of this name; nil if it is not the shared one.
func SharedHeaders(chain, serverName, host string) map[string]string {
	if chain != sharedChain {
		return nil
	}
	return map[string]string{serverNameHeader: "=" + serverName, sameNameHeader: strconv.FormatBool(serverName == host || serverName == "")}
}
