package xds

import (
	"net/netip"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	exprv1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// behindProxies ends the names of the filter chains for connections of trusted proxies. No Secret's name has a space.
	behindProxies = " behind proxies"
	// directState and sourceState are who opened a connection, and who it is said to be from.
	directState, sourceState = "hythe.direct", "hythe.source"
	// keptFor and keptProto hold what a trusted proxy says while all such headers are dropped.
	keptFor, keptProto = "x-hythe-kept-for", "x-hythe-kept-proto"
)

// withProxyProtocol makes a listener take the PROXY protocol, of both versions, from the load balancers that it is expected of.
// Others have to come without: whoever says to be somebody else is refused before anything of him is read.
func (b *builder) withProxyProtocol(l *listenerv3.Listener) {
	if len(b.listen.ProxyProtocol) == 0 {
		return
	}
	first := &listenerv3.ListenerFilter{
		Name: "envoy.filters.listener.proxy_protocol",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.any(&proxyprotocolv3.ProxyProtocol{
			AllowRequestsWithoutProxyProtocol: true, StatPrefix: "proxy",
		})},
	}
	l.ListenerFilters = append([]*listenerv3.ListenerFilter{first}, l.ListenerFilters...)
	chains := l.GetFilterChains()
	if l.GetDefaultFilterChain() != nil {
		chains = append(chains[:len(chains):len(chains)], l.GetDefaultFilterChain())
	}
	for _, chain := range chains {
		chain.Filters = append(b.onlyBalancers(), chain.Filters...)
	}
}

// onlyBalancers ends connections of others than balancers that are said to be somebody else's. Who opened a connection, and who
// it is said to be from, are put side by side: no matcher of Envoy sees both.
func (b *builder) onlyBalancers() []*listenerv3.Filter {
	balancers := make([]*rbacconfigv3.Principal, 0, len(b.listen.ProxyProtocol))
	for _, p := range b.listen.ProxyProtocol {
		balancers = append(balancers, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(p)}})
	}
	permissions := []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}}
	rules := &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{
			"balancers": {Permissions: permissions, Principals: balancers},
			"as themselves": {
				Permissions: permissions,
				Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}},
				Condition:   sameState(directState, sourceState),
			},
		},
	}
	return []*listenerv3.Filter{
		b.stateFilter(textState(directState, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
			textState(sourceState, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")),
		{
			Name:       "envoy.filters.network.rbac",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(&networkrbacv3.RBAC{Rules: rules, StatPrefix: "proxy."})},
		},
	}
}

func textState(key, format string) *statev3.FilterStateValue {
	return &statev3.FilterStateValue{
		Key:        &statev3.FilterStateValue_ObjectKey{ObjectKey: key},
		FactoryKey: "envoy.string",
		Value:      &statev3.FilterStateValue_FormatString{FormatString: textFormat(format)},
	}
}

func textFormat(format string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: format}},
	}}
}

// withTrusted adds the filter chains for connections of trusted proxies: make is called again for them, and what it returns has
// the source addresses added. Whether a header is believed depends on the connection, and a chain is all that can.
func (b *builder) withTrusted(l *listenerv3.Listener, build func(l *listenerv3.Listener)) {
	build(l)
	if len(b.listen.TrustedProxies) == 0 {
		return
	}
	var more listenerv3.Listener
	known := len(b.problems)
	b.trusted = true
	build(&more)
	b.trusted = false
	b.problems = b.problems[:known] // the same ones
	chains := more.GetFilterChains()
	if more.GetDefaultFilterChain() != nil {
		chains = append(chains, more.GetDefaultFilterChain())
	}
	for _, chain := range chains {
		if isPassthrough(chain) {
			continue
		}
		chain.Name += behindProxies
		if chain.FilterChainMatch == nil {
			chain.FilterChainMatch = &listenerv3.FilterChainMatch{}
		}
		for _, p := range b.listen.TrustedProxies {
			chain.FilterChainMatch.SourcePrefixRanges = append(chain.FilterChainMatch.SourcePrefixRanges, cidr(p))
		}
		l.FilterChains = append(l.FilterChains, chain)
	}
}

// believeProxies makes a manager take the client's address from X-Forwarded-For: it is the last one there that is no trusted
// proxy's. Routes and pods see that address alone, since what stands before it may be anybody's invention.
func (b *builder) believeProxies(manager *hcmv3.HttpConnectionManager) {
	trusted := &xffv3.XffTrustedCidrs{}
	for _, p := range b.listen.TrustedProxies {
		trusted.Cidrs = append(trusted.Cidrs, cidr(p))
	}
	manager.UseRemoteAddress = wrapperspb.Bool(false)
	manager.OriginalIpDetectionExtensions = []*corev3.TypedExtensionConfig{{
		Name: "envoy.http.original_ip_detection.xff", TypedConfig: b.any(&xffv3.XffConfig{XffTrustedCidrs: trusted}),
	}}
	client := &hcmv3.HttpFilter{
		Name: "envoy.filters.http.set_filter_state",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&httpstatev3.Config{
			OnRequestHeaders: []*statev3.FilterStateValue{clientValue()}, ClearRouteCache: true,
		})},
	}
	forwarded := &hcmv3.HttpFilter{
		Name: "hythe.forwarded-for",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&mutationv3.HeaderMutation{Mutations: &mutationv3.Mutations{
			RequestMutations: []*rulesv3.HeaderMutation{headerOf("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")},
		}})},
	}
	first := []*hcmv3.HttpFilter{client, forwarded}
	manager.HttpFilters = append(first, manager.HttpFilters...)
	for _, u := range manager.UpgradeConfigs {
		u.Filters = append([]*hcmv3.HttpFilter{proto.CloneOf(client), proto.CloneOf(forwarded)}, u.Filters...)
	}
}

// keepForwarded carries what a trusted proxy says past drop, which takes all headers of that kind away. Its x-request-id is its
// client's, who would choose by it what is traced: Envoy makes a new one, as it does for strangers.
func keepForwarded(drop []*rulesv3.HeaderMutation) []*rulesv3.HeaderMutation {
	out := []*rulesv3.HeaderMutation{
		removeHeader("x-request-id"),
		removeHeader(keptFor), removeHeader(keptProto),
		headerOf(keptFor, "%REQ(X-FORWARDED-FOR)%"), headerOf(keptProto, "%REQ(X-FORWARDED-PROTO)%"),
	}
	out = append(out, drop...)
	return append(out, headerOf("x-forwarded-for", "%REQ("+keptFor+")%"), headerOf("x-forwarded-proto", "%REQ("+keptProto+")%"),
		removeHeader(keptFor), removeHeader(keptProto))
}

func removeHeader(name string) *rulesv3.HeaderMutation {
	return &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Remove{Remove: name}}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

// sameState is an expression of CEL: two strings of filter state are the same.
func sameState(a, b string) *exprv1.Expr {
	call := func(function string, args ...*exprv1.Expr) *exprv1.Expr {
		return &exprv1.Expr{ExprKind: &exprv1.Expr_CallExpr{CallExpr: &exprv1.Expr_Call{Function: function, Args: args}}}
	}
	state := func(key string) *exprv1.Expr {
		return call("_[_]",
			&exprv1.Expr{ExprKind: &exprv1.Expr_IdentExpr{IdentExpr: &exprv1.Expr_Ident{Name: "filter_state"}}},
			&exprv1.Expr{ExprKind: &exprv1.Expr_ConstExpr{ConstExpr: &exprv1.Constant{ConstantKind: &exprv1.Constant_StringValue{StringValue: key}}}})
	}
	return call("_==_", state(a), state(b))
}
