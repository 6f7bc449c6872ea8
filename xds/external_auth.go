package xds

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
)

const (
	// Doorkeeper is the name of the cluster of the doorkeeper (internal/envoy/authz), who answers for what Envoy cannot decide
	// alone.
	Doorkeeper = "hythe.doorkeeper"
	// AuthEntry is the key under which a route says what is asked: the name of an entry in gateway.Config.Auth.
	AuthEntry = "hythe.auth"
	// doorkeeperTimeout is longer than what the doorkeeper waits for a server.
	doorkeeperTimeout = 12 * time.Second
)

// externalAuth asks the doorkeeper, and answers 503 without an answer. Without a route's entry it lets nobody in.
func externalAuth() *authzv3.ExtAuthz {
	return &authzv3.ExtAuthz{
		Services: &authzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			Timeout:         durationpb.New(doorkeeperTimeout),
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: Doorkeeper}},
		}},
		TransportApiVersion:        corev3.ApiVersion_V3,
		StatusOnError:              &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		EncodeRawHeaders:           true,
		ValidateMutations:          true,
		ChargeClusterResponseStats: wrapperspb.Bool(false),
	}
}

// ask lets the doorkeeper decide about a route's requests.
func (b *builder) ask(r gateway.Route, out *routev3.Route) {
	if r.Auth == "" {
		return
	}
	b.enable(out, filterExternalAuth, &authzv3.ExtAuthzPerRoute{Override: &authzv3.ExtAuthzPerRoute_CheckSettings{
		CheckSettings: &authzv3.CheckSettings{ContextExtensions: map[string]string{AuthEntry: r.Auth}},
	}})
}

// addDoorkeeper adds the doorkeeper's cluster. It is always there: a request may be under way by a route that was just replaced.
func (b *builder) addDoorkeeper() {
	cluster := &clusterv3.Cluster{
		Name:                 Doorkeeper,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: Doorkeeper,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
					Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: b.settings.AuthSocket}},
				}}},
			}}}},
		},
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: wrapperspb.UInt32(noLimit), MaxPendingRequests: wrapperspb.UInt32(noLimit),
			MaxRequests: wrapperspb.UInt32(noLimit), MaxRetries: wrapperspb.UInt32(noLimit),
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.any(&httpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
						},
					},
				},
			}),
		},
	}
	b.add(&Resource{Kind: Cluster, Name: Doorkeeper}, cluster)
}

// RouteEntry is what the doorkeeper is asked about a route of Envoy; empty for nothing.
func RouteEntry(r *routev3.Route) string {
	var config authzv3.ExtAuthzPerRoute
	if r.GetTypedPerFilterConfig()[filterExternalAuth].UnmarshalTo(&config) != nil {
		return ""
	}
	return config.GetCheckSettings().GetContextExtensions()[AuthEntry]
}
