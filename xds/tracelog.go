package xds

import (
	"regexp"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TraceHeader marks a request whose real road somebody wants to know. Its value is 8 to 32 lower-case hexadecimal digits.
const TraceHeader = "X-Hythe-Trace"

// What the log of marked requests holds in tags.
const (
	// TagChain is the filter chain, TagFlags Envoy's short response flags.
	TagChain = "chain"
	TagFlags = "flags"
)

const traceValue = "[0-9a-f]{8,32}"

var validTrace = regexp.MustCompile("^" + traceValue + "$")

// ValidTrace says whether id may be the value of TraceHeader.
func ValidTrace(id string) bool { return validTrace.MatchString(id) }

// traceLog is the access log of marked requests, sent to a cluster of Envoy's bootstrap. For all others it is the
// look-up of one header.
func (b *builder) traceLog(cluster string) *accesslogv3.AccessLog {
	marked := &routev3.HeaderMatcher{
		Name:                 TraceHeader,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: fullMatch(traceValue)},
	}
	tag := func(name, format string) *tracingv3.CustomTag {
		return &tracingv3.CustomTag{Tag: name, Type: &tracingv3.CustomTag_Value{Value: format}}
	}
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.http_grpc",
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
			HeaderFilter: &accesslogv3.HeaderFilter{Header: marked},
		}},
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&grpcv3.HttpGrpcAccessLogConfig{
			CommonConfig: &grpcv3.CommonGrpcAccessLogConfig{
				LogName:             "hythe-trace",
				TransportApiVersion: corev3.ApiVersion_V3,
				BufferFlushInterval: durationpb.New(100 * time.Millisecond),
				GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster},
				}},
				CustomTags: []*tracingv3.CustomTag{tag(TagChain, "%FILTER_CHAIN_NAME%"), tag(TagFlags, "%RESPONSE_FLAGS%")},
			},
			AdditionalRequestHeadersToLog: []string{TraceHeader},
		})},
	}
}
