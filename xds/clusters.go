package xds

import (
	"cmp"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

const (
	// noLimit is for circuit breakers: above what the listeners let in (50,000 connections of 100 streams), so
	// that the limit of an edge is at its door and never answers 503 for one busy Service.
	noLimit = 10_000_000
	// bufferLimit is what Envoy keeps per connection before it stops reading (Envoy's advice for edges).
	bufferLimit = 32 << 10
	// Linux socket option TCP_USER_TIMEOUT, tcp(7): level IPPROTO_TCP.
	ipprotoTCP, tcpUserTimeout = 6, 18
	// userTimeout ends a connection whose bytes nobody acknowledged for so long, or whose keepalive probes nobody
	// answered: a node that was cut off does not hold requests longer than that.
	userTimeout = 20 * time.Second
)

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func (b *builder) cluster(c gateway.Backend) *clusterv3.Cluster {
	threshold := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: wrapperspb.UInt32(noLimit), MaxPendingRequests: wrapperspb.UInt32(noLimit),
		MaxRequests: wrapperspb.UInt32(noLimit), MaxRetries: wrapperspb.UInt32(noLimit),
	}
	out := &clusterv3.Cluster{
		TransportSocket:      b.speakProxy(c.ProxyProtocol, b.upstreamTLS(c.Protocol, c.Upstream)),
		Name:                 c.Name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: c.Endpoints},
		ConnectTimeout:       durationpb.New(cmp.Or(c.ConnectTimeout, b.settings.ConnectTimeout)),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// Kubernetes says who is ready; to send to the others as well when few are left helps nobody.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
		},
		CircuitBreakers:               &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{threshold}},
		OutlierDetection:              outlierDetection(),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveTime: wrapperspb.UInt32(10), KeepaliveInterval: wrapperspb.UInt32(5), KeepaliveProbes: wrapperspb.UInt32(3),
		}},
		UpstreamBindConfig: &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{{
			Description: "TCP_USER_TIMEOUT", Level: ipprotoTCP, Name: tcpUserTimeout, State: corev3.SocketOption_STATE_PREBIND,
			Value: &corev3.SocketOption_IntValue{IntValue: userTimeout.Milliseconds()},
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.any(upstreamHTTP(c.Protocol)),
		},
	}
	if c.Stream != policy.NoStream {
		out.TypedExtensionProtocolOptions = nil
	}
	if c.Stream == policy.Datagrams { // which have no options of TCP: Envoy would open no socket
		out.UpstreamConnectionOptions, out.UpstreamBindConfig = nil, nil
	}
	balance(out, c.Balance)
	treatPods(out, c)
	return out
}

// outlierDetection avoids endpoints that cannot be connected to, never more than half of them and never for what
// an application answers: pods of a dead node stay ready in the API for most of a minute.
func outlierDetection() *clusterv3.OutlierDetection {
	off := wrapperspb.UInt32(0)
	return &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors:         true,
		ConsecutiveLocalOriginFailure:          wrapperspb.UInt32(5),
		EnforcingConsecutiveLocalOriginFailure: wrapperspb.UInt32(100),
		EnforcingLocalOriginSuccessRate:        off,
		EnforcingConsecutive_5Xx:               off,
		EnforcingConsecutiveGatewayFailure:     off,
		EnforcingSuccessRate:                   off,
		Interval:                               durationpb.New(time.Second),
		BaseEjectionTime:                       durationpb.New(5 * time.Second),
		MaxEjectionTime:                        durationpb.New(30 * time.Second),
		MaxEjectionPercent:                     wrapperspb.UInt32(50),
	}
}

func loadAssignment(s gateway.EndpointSet) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: s.Name}
	if len(s.Addresses) == 0 {
		return out
	}
	locality := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{}}
	for _, a := range s.Addresses {
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(a)}},
		})
	}
	out.Endpoints = []*endpointv3.LocalityLbEndpoints{locality}
	return out
}

func secret(c gateway.Certificate) *tlsv3.Secret {
	inline := func(data []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
	}
	pair := &tlsv3.TlsCertificate{CertificateChain: inline(c.Chain), PrivateKey: inline(c.Key)}
	if len(c.Staple) > 0 {
		pair.OcspStaple = inline(c.Staple)
	}
	return &tlsv3.Secret{Name: c.Name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: pair}}
}

func certificateObjects(name string) []model.ObjectRef {
	namespace, secret, ok := strings.Cut(name, "/")
	if !ok {
		return nil
	}
	return []model.ObjectRef{{Kind: "Secret", Namespace: namespace, Name: secret}}
}
