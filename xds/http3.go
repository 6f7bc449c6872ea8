package xds

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"

	"hythe.dev/hythe/gateway"
)

const (
	// http3Listener is beside the one for https, on the same port of UDP.
	http3Listener = "http3"
	// altServiceAge is how long browsers come by HTTP/3 without asking again, in seconds. Hosts may lose it: divide.
	altServiceAge = 3600
)

// altService tells browsers that a host is there by HTTP/3, and at which port they find it (RFC 7838, RFC 9114 section 3.1.1). It
// is on the chains that addHTTP3 has, and not on those of trusted proxies, who come for others.
func (b *builder) altService() []*hcmv3.HttpFilter {
	if b.listen.HTTP3 == 0 || b.trusted {
		return nil
	}
	return []*hcmv3.HttpFilter{{
		Name: "hythe.alt-svc",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&mutationv3.HeaderMutation{Mutations: &mutationv3.Mutations{
			ResponseMutations: []*rulesv3.HeaderMutation{headerOf("alt-svc", fmt.Sprintf(`h3=":%d"; ma=%d`, b.listen.HTTP3, altServiceAge))},
		}})},
	}}
}

// addHTTP3 adds the listener for QUIC, with the chains of certificates. The shared chain has no HTTP/3: Envoy asks for no
// certificates on demand there. Nor have those that ask for clients' certificates.
func (b *builder) addHTTP3(tls *listenerv3.Listener, certificates []gateway.Certificate) {
	if b.listen.HTTP3 == 0 {
		return
	}
	resource := &Resource{Kind: Listener, Name: http3Listener, Clusters: b.collectors()}
	own := map[string]bool{}
	for _, c := range certificates {
		own[c.Name] = true
		resource.Needs = append(resource.Needs, c.Name)
	}
	b.contain(resource, "nobody comes by HTTP/3", func() {
		l := b.listener(http3Listener, b.settings.HTTPS)
		l.PerConnectionBufferLimitBytes = nil
		l.GetAddress().GetSocketAddress().Protocol = corev3.SocketAddress_UDP
		l.UdpListenerConfig = &listenerv3.UdpListenerConfig{
			QuicOptions:            &listenerv3.QuicProtocolOptions{},
			DownstreamSocketConfig: &corev3.UdpSocketConfig{PreferGro: wrapperspb.Bool(true)},
		}
		for _, c := range tls.GetFilterChains() {
			if name := c.GetName(); own[name] || name == pinnedChain && own[gateway.DefaultCertificateName] {
				l.FilterChains = append(l.FilterChains, b.http3Chain(c, name))
			}
		}
		if c := tls.GetDefaultFilterChain(); c != nil && own[c.GetName()] {
			l.DefaultFilterChain = b.http3Chain(c, c.GetName())
		}
		if len(l.GetFilterChains()) > 0 || l.GetDefaultFilterChain() != nil {
			b.add(resource, l)
		}
	})
}

// http3Chain is a chain for https, by QUIC.
func (b *builder) http3Chain(of *listenerv3.FilterChain, name string) *listenerv3.FilterChain {
	certificate := name
	if name == pinnedChain {
		certificate = gateway.DefaultCertificateName
	}
	context := b.tlsContext(certificate)
	context.CommonTlsContext.AlpnProtocols = []string{"h3"}
	context.CommonTlsContext.TlsParams = TLSModern.parameters() // RFC 9001 section 4.2
	manager := b.manager("http3", append(b.hsts(certificate), b.altService()...)...)
	manager.CodecType = hcmv3.HttpConnectionManager_HTTP3
	manager.Http3ProtocolOptions = &corev3.Http3ProtocolOptions{QuicProtocolOptions: &corev3.QuicProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(100),
		InitialStreamWindowSize:     wrapperspb.UInt32(64 << 10),
		InitialConnectionWindowSize: wrapperspb.UInt32(1 << 20),
	}}
	return &listenerv3.FilterChain{
		Name:             of.GetName(),
		FilterChainMatch: of.GetFilterChainMatch(),
		TransportSocket: &corev3.TransportSocket{
			Name: "envoy.transport_sockets.quic",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(&quicv3.QuicDownstreamTransport{
				DownstreamTlsContext: context,
				EnableEarlyData:      wrapperspb.Bool(false), // whoever records such a request can send it again
			})},
		},
		Filters: append(b.stateOf(stampValue(certificate)), b.managerFilter(manager)),
	}
}
