package xds

import (
	"net/netip"
	"strings"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	udpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// datagramIdle is how long a client's port of UDP is remembered; it is Envoy's default.
const datagramIdle = time.Minute

// addStreams adds a listener for each port that leads to a Service, but where it would be that of another listener.
func (b *builder) addStreams(streams []gateway.Stream) {
	type socket struct {
		protocol corev1.Protocol
		port     uint16
	}
	taken := map[socket]string{
		{corev1.ProtocolTCP, b.settings.HTTP.Port()}:  "http",
		{corev1.ProtocolTCP, b.settings.HTTPS.Port()}: "https",
		{corev1.ProtocolUDP, b.settings.HTTPS.Port()}: "https",
		{corev1.ProtocolTCP, b.settings.Ready.Port()}: "readiness",
	}
	for _, s := range streams {
		addr := b.streamAddress(s)
		at := socket{s.Protocol, addr.Port()}
		if by, ok := taken[at]; ok {
			b.problems = append(b.problems, model.Problemf(s.Origin, "PortConflict", "%s: Envoy would listen on port %d, which is that of %s; the port is not exposed", s.Name(), addr.Port(), by))
			continue
		}
		taken[at] = s.Name()
		resource := b.few(&Resource{Kind: Listener, Name: s.Name(), Clusters: []string{s.Backend}, Objects: []model.ObjectRef{s.Origin}})
		b.contain(resource, "its port is closed", func() {
			l := b.listener(s.Name(), addr)
			l.StatPrefix = strings.ReplaceAll(s.Name(), "/", "_")
			if s.Protocol == corev1.ProtocolUDP {
				b.forwardDatagrams(l, s)
			} else {
				b.forwardConnections(l, s)
			}
			b.add(resource, l)
		})
	}
}

// streamAddress is where Envoy listens for a port.
func (b *builder) streamAddress(s gateway.Stream) netip.AddrPort {
	port := int(s.Port)
	if port < b.settings.PortOffset {
		port += b.settings.PortOffset
	}
	return netip.AddrPortFrom(b.settings.HTTP.Addr(), uint16(port))
}

func (b *builder) forwardConnections(l *listenerv3.Listener, s gateway.Stream) {
	l.FilterChains = []*listenerv3.FilterChain{{
		Name: s.Name(),
		Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.tcp_proxy",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(&tcpv3.TcpProxy{
				StatPrefix:       l.GetStatPrefix(),
				ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: s.Backend},
				IdleTimeout:      durationpb.New(passthroughIdle),
			})},
		}},
	}}
	if s.ProxyProtocol {
		b.withProxyProtocol(l)
	}
}

func (b *builder) forwardDatagrams(l *listenerv3.Listener, s gateway.Stream) {
	l.PerConnectionBufferLimitBytes = nil
	l.GetAddress().GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	l.UdpListenerConfig = &listenerv3.UdpListenerConfig{}
	route := &xdscorev3.TypedExtensionConfig{Name: "route", TypedConfig: b.any(&udpv3.Route{Cluster: s.Backend})}
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name: "envoy.filters.udp_listener.udp_proxy",
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.any(&udpv3.UdpProxyConfig{
			StatPrefix:  l.GetStatPrefix(),
			IdleTimeout: durationpb.New(datagramIdle),
			RouteSpecifier: &udpv3.UdpProxyConfig_Matcher{Matcher: &xdsmatcherv3.Matcher{
				OnNoMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: route}},
			}},
		})},
	}}
}

// speakProxy begins connections to pods with who the client is.
func (b *builder) speakProxy(version policy.ProxyProtocol, socket *corev3.TransportSocket) *corev3.TransportSocket {
	if version == policy.NoProxy {
		return socket
	}
	if socket == nil {
		socket = &corev3.TransportSocket{
			Name:       "envoy.transport_sockets.raw_buffer",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(&rawv3.RawBuffer{})},
		}
	}
	config := &corev3.ProxyProtocolConfig{Version: corev3.ProxyProtocolConfig_V1}
	if version == policy.ProxyV2 {
		config.Version = corev3.ProxyProtocolConfig_V2
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.upstream_proxy_protocol",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(&proxyv3.ProxyProtocolUpstreamTransport{
			Config: config, TransportSocket: socket,
		})},
	}
}
