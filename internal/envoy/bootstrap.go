package envoy

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"
)

// GatewayCluster is the static cluster that leads to the gateway.
const GatewayCluster = "xds"

// defaultConnections is the limit of open client connections (Envoy's advice for edges).
const defaultConnections = 50_000

// BootstrapOptions say what an Envoy must know before it can ask for the rest.
type BootstrapOptions struct {
	// Node is the name of the node, and Cluster what the Envoys of all nodes are called; default "hythe".
	Node, Cluster string
	// XDSSocket is the path of the gateway's unix socket.
	XDSSocket string
	// AdminSocket is the path of the unix socket for Envoy's admin pages; none if empty. It is never TCP: its
	// pages can stop Envoy.
	AdminSocket string
	// AdminMode is the mode of that socket; default 0600. Whoever may open it can do all that Envoy's admin can, but so
	// can whoever feeds Envoy: where the gateway runs as another user than Envoy, give both one group of their own
	// (runAsGroup) and take 0660.
	AdminMode uint32
	// MaxConnections is the limit of open client connections; default 50,000.
	MaxConnections int64
	// MaxHeapBytes makes Envoy give memory back at 95 % of it and refuse requests at 98 %; 0 for no limit.
	MaxHeapBytes uint64
}

// Bootstrap returns Envoy's bootstrap configuration as YAML. Everything else, readiness included, comes by xDS.
func Bootstrap(options BootstrapOptions) ([]byte, error) {
	if options.Node == "" || options.XDSSocket == "" {
		return nil, errors.New("make bootstrap: a node name and an xDS socket are needed")
	}
	p := &packer{}
	b := &bootstrapv3.Bootstrap{
		Node:             &corev3.Node{Id: options.Node, Cluster: cmp.Or(options.Cluster, "hythe")},
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{p.gateway(options.XDSSocket)}},
		DynamicResources: dynamicResources(),
		LayeredRuntime:   p.runtime(),
		OverloadManager:  p.overload(options),
	}
	if options.AdminSocket != "" {
		b.Admin = &bootstrapv3.Admin{Address: pipe(options.AdminSocket, cmp.Or(options.AdminMode, 0o600))}
	}
	if err := errors.Join(p.err, b.ValidateAll()); err != nil {
		return nil, fmt.Errorf("make bootstrap: %w", err)
	}
	out, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err == nil {
		out, err = yaml.JSONToYAML(out)
	}
	if err != nil {
		return nil, fmt.Errorf("marshal bootstrap: %w", err)
	}
	return out, nil
}

// packer packs extensions and keeps the first errors.
type packer struct{ err error }

func (p *packer) any(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	p.err = errors.Join(p.err, err)
	return out
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	ads := func() *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}
	}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads(),
		CdsConfig: ads(),
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
					ClusterName: GatewayCluster,
					// The gateway is on the same node: look for it again soon after it was restarted.
					RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
						BaseInterval: durationpb.New(100 * time.Millisecond),
						MaxInterval:  durationpb.New(time.Second),
					}},
				},
			}}},
		},
	}
}

func (p *packer) gateway(socket string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 GatewayCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: GatewayCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(socket, 0)}},
			}}}},
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": p.any(&httpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
								// A gateway that hangs without closing its socket is noticed.
								ConnectionKeepalive: &corev3.KeepaliveSettings{
									Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(10 * time.Second),
								},
							},
						},
					},
				},
			}),
		},
	}
}

// runtime limits how many requests of one connection are handled before other connections have their turn. A wildcard
// host comes with a regular expression as long as its name, up to 253 characters: Envoy's own limit is 100 instructions.
func (p *packer) runtime() *bootstrapv3.LayeredRuntime {
	values, err := structpb.NewStruct(map[string]any{
		"http.max_requests_per_io_cycle": 1, "re2.max_program_size.error_level": 2000,
	})
	p.err = errors.Join(p.err, err)
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: values},
	}}}
}

func (p *packer) overload(options BootstrapOptions) *overloadv3.OverloadManager {
	const connections, heap = "envoy.resource_monitors.global_downstream_max_connections", "envoy.resource_monitors.fixed_heap"
	monitor := func(name string, config proto.Message) *overloadv3.ResourceMonitor {
		return &overloadv3.ResourceMonitor{
			Name: name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: p.any(config)},
		}
	}
	out := &overloadv3.OverloadManager{
		ResourceMonitors: []*overloadv3.ResourceMonitor{monitor(connections, &connectionsv3.DownstreamConnectionsConfig{
			MaxActiveDownstreamConnections: cmp.Or(options.MaxConnections, defaultConnections),
		})},
	}
	if options.MaxHeapBytes == 0 {
		return out
	}
	out.RefreshInterval = durationpb.New(250 * time.Millisecond)
	out.ResourceMonitors = append(out.ResourceMonitors,
		monitor(heap, &heapv3.FixedHeapConfig{MaxHeapSizeBytes: options.MaxHeapBytes}))
	action := func(name string, at float64) *overloadv3.OverloadAction {
		return &overloadv3.OverloadAction{Name: name, Triggers: []*overloadv3.Trigger{{
			Name:         heap,
			TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: at}},
		}}}
	}
	out.Actions = []*overloadv3.OverloadAction{
		action("envoy.overload_actions.shrink_heap", 0.95),
		action("envoy.overload_actions.stop_accepting_requests", 0.98),
	}
	return out
}
