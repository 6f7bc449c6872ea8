package xds

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	healthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
)

// Names of the listeners.
const (
	httpListener  = "http"
	httpsListener = "https"
	readyListener = "ready"
	// pinnedChain serves the default certificate to server names that a wildcard of somebody else covers.
	pinnedChain = "default for names"
)

func (b *builder) plainListener() *listenerv3.Listener {
	l := b.listener(httpListener, b.settings.HTTP)
	b.withTrusted(l, func(l *listenerv3.Listener) {
		l.FilterChains = []*listenerv3.FilterChain{{Name: "http", Filters: append(b.stateOf(), b.httpFilter("http"))}}
	})
	b.withProxyProtocol(l)
	return l
}

// tlsListener has a filter chain for each certificate, and one for all others if some are shared. Whatever may change often
// is in the virtual hosts: to change a chain is to drain its connections.
func (b *builder) tlsListener(certificates []gateway.Certificate, shared bool, passthroughs []gateway.Passthrough) *listenerv3.Listener {
	l := b.listener(httpsListener, b.settings.HTTPS)
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       "envoy.filters.listener.tls_inspector",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.any(&inspectorv3.TlsInspector{})},
	}}
	b.withTrusted(l, func(l *listenerv3.Listener) { b.addTLSChains(l, certificates, shared, passthroughs) })
	b.withProxyProtocol(l)
	return l
}

func (b *builder) addTLSChains(l *listenerv3.Listener, certificates []gateway.Certificate, shared bool, passthroughs []gateway.Passthrough) {
	taken := map[string]bool{}
	for _, c := range certificates {
		chain := b.tlsChain(c.Name)
		if c.Name == gateway.DefaultCertificateName {
			l.DefaultFilterChain = chain
			chain = proto.CloneOf(chain)
			chain.Name = pinnedChain
		}
		var names []string
		for _, name := range c.ServerNames {
			if strings.Contains(strings.TrimPrefix(name, "*."), "*") || name == "" || taken[name] {
				b.certificateProblem(c.Name, "server name %q is not usable or is another certificate's", name)
				continue
			}
			taken[name] = true
			names = append(names, name)
		}
		if len(names) == 0 {
			continue
		}
		chain.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: names}
		if err := chain.ValidateAll(); err != nil {
			b.certificateProblem(c.Name, "%v", err)
			continue
		}
		l.FilterChains = append(l.FilterChains, chain)
	}
	l.FilterChains = append(l.FilterChains, b.clientChains(taken)...)
	if shared {
		l.DefaultFilterChain = b.sharedTLS()
		l.FilterChains = append(l.FilterChains, b.reserved())
	}
	for _, p := range passthroughs {
		if !taken[p.ServerName] {
			taken[p.ServerName] = true
			l.FilterChains = append(l.FilterChains, b.passthroughChain(p))
		}
	}
}

func (b *builder) certificateProblem(name, format string, args ...any) {
	for _, o := range certificateObjects(name) {
		b.problems = append(b.problems, model.Problemf(o, "InvalidForEnvoy", format, args...))
	}
}

// readinessListener answers 200 to /ready. It is sent last, so until the first configuration is in use a probe
// finds nobody who listens.
func (b *builder) readinessListener() *listenerv3.Listener {
	l := b.listener(readyListener, b.settings.Ready)
	l.IgnoreGlobalConnLimit = true
	l.BypassOverloadManager = true
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: readyListener,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: readyListener,
			VirtualHosts: []*routev3.VirtualHost{{Name: readyListener, Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}, Action: direct(404),
			}}}},
		}},
		// It answers 503 once Envoy was told to drain.
		HttpFilters: append([]*hcmv3.HttpFilter{{
			Name: "envoy.filters.http.health_check",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&healthv3.HealthCheck{
				PassThroughMode: wrapperspb.Bool(false),
				Headers: []*routev3.HeaderMatcher{{
					Name: ":path",
					HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
						MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "/ready"},
					}},
				}},
			})},
		}}, b.router()...),
	}
	l.FilterChains = []*listenerv3.FilterChain{{Name: readyListener, Filters: []*listenerv3.Filter{{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(manager)},
	}}}}
	return l
}

func (b *builder) listener(name string, addr netip.AddrPort) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: name, StatPrefix: name,
		Address:                       address(addr),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		TrafficDirection:              corev3.TrafficDirection_INBOUND,
	}
}

func address(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
		Ipv4Compat:    a.Addr() == netip.IPv6Unspecified(),
	}}}
}

func (b *builder) tlsChain(certificate string) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:                          certificate,
		TransportSocketConnectTimeout: durationpb.New(5 * time.Second),
		TransportSocket: &corev3.TransportSocket{
			Name:       "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(b.tlsContext(certificate))},
		},
		Filters: append(b.stateOf(stampValue(certificate)), b.chainManager("https", certificate)),
	}
}

func (b *builder) tlsContext(certificate string) *tlsv3.DownstreamTlsContext {
	return &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams:                      b.settings.TLSProfile.parameters(),
		AlpnProtocols:                  []string{"h2", "http/1.1"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: certificate, SdsConfig: ads()}},
	}}
}

func stampValue(certificate string) *statev3.FilterStateValue {
	return &statev3.FilterStateValue{
		Key:        &statev3.FilterStateValue_ObjectKey{ObjectKey: stampKey},
		FactoryKey: "envoy.network.ip",
		Value:      &statev3.FilterStateValue_FormatString{FormatString: textFormat(stamp(certificate).String())},
	}
}

// stateOf says what is known of a connection: values, and the client, but where each request has another.
func (b *builder) stateOf(values ...*statev3.FilterStateValue) []*listenerv3.Filter {
	if !b.trusted {
		values = append(values, clientValue())
	}
	if len(values) == 0 {
		return nil
	}
	return []*listenerv3.Filter{b.stateFilter(values...)}
}

// stateFilter says something about a connection to its routes.
func (b *builder) stateFilter(values ...*statev3.FilterStateValue) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name: "envoy.filters.network.set_filter_state",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(&setstatev3.Config{
			OnNewConnection: values,
		})},
	}
}

// manager has the settings that Envoy advises for edges (configuration/best_practices/edge). No request has a
// total time limit: Kubernetes' Ingress knows none, and uploads, server-sent events and WebSockets run for long.
// What does not move is ended by the stream idle timeout.
func (b *builder) manager(stat string, first ...*hcmv3.HttpFilter) *hcmv3.HttpConnectionManager {
	out := &hcmv3.HttpConnectionManager{
		StatPrefix: stat,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: routeTable, ConfigSource: ads(),
		}},
		HttpFilters: append(first, b.httpFilters()...),
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{
			UpgradeType: "websocket", Filters: append(slices.Clone(first), b.upgradeFilters()...),
		}},

		EarlyHeaderMutationExtensions: b.dropForgeable(),

		UseRemoteAddress:             wrapperspb.Bool(true),
		InternalAddressConfig:        nobodyInternal(),
		StripPortMode:                &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},
		StripTrailingHostDot:         true,
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT,
		ServerName:                   "hythe",

		StreamIdleTimeout:     durationpb.New(b.settings.StreamIdleTimeout),
		RequestHeadersTimeout: durationpb.New(10 * time.Second),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(15 * time.Minute),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
		// Old proxies and health checks still speak it.
		HttpProtocolOptions: &corev3.Http1ProtocolOptions{AcceptHttp_10: true},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(100),
			InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
			InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
		},
		AccessLog: b.accessLog(),
		Tracing:   b.tracing(),
	}
	if b.trusted {
		b.believeProxies(out)
	}
	return out
}

func (b *builder) httpFilter(stat string, first ...*hcmv3.HttpFilter) *listenerv3.Filter {
	return b.managerFilter(b.manager(stat, first...))
}

// A managerKey says what differs between the managers of chains for certificates.
type managerKey struct {
	stat          string
	trusted, hsts bool
}

// chainManager is the manager of a certificate's chain. Most chains have the same one: it is made once.
func (b *builder) chainManager(stat, certificate string) *listenerv3.Filter {
	hsts := b.hsts(certificate)
	key := managerKey{stat, b.trusted, len(hsts) > 0}
	if b.managers[key] == nil {
		b.managers[key] = b.httpFilter(stat, append(hsts, b.altService()...)...)
	}
	return b.managers[key]
}

func (b *builder) managerFilter(manager *hcmv3.HttpConnectionManager) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(manager)},
	}
}

func (b *builder) router() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{{
		Name:       "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&routerv3.Router{SuppressEnvoyHeaders: true})},
	}}
}
