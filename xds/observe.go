package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"hythe.dev/hythe/gateway"
)

// logFields are those of a line in JSON, in Envoy's words for them.
var logFields = map[string]string{
	"time": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "host": "%REQ(:AUTHORITY)%", "method": "%REQ(:METHOD)%",
	"path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%", "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%",
	"details": "%RESPONSE_CODE_DETAILS%", "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "milliseconds": "%DURATION%",
	"ingress": "%ROUTE_NAME%", "backend": "%UPSTREAM_CLUSTER%", "endpoint": "%UPSTREAM_HOST%", "userAgent": "%REQ(USER-AGENT)%",
	"requestID": "%REQ(X-REQUEST-ID)%", "serverName": "%REQUESTED_SERVER_NAME%", "tls": "%DOWNSTREAM_TLS_VERSION%", "traceID": "%TRACE_ID%",
}

// accessLog is what is written of requests, and the log of marked ones. A route of its own switches it off, so that the
// listeners stay as they are.
func (b *builder) accessLog() []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	format, share := b.observe.Log, b.observe.LogPerMille
	if format == "" && b.settings.AccessLog {
		format, share = gateway.LogText, 1000
	}
	if format != "" && share > 0 {
		stdout := &streamv3.StdoutAccessLog{}
		if format == gateway.LogJSON {
			stdout.AccessLogFormat = &streamv3.StdoutAccessLog_LogFormat{LogFormat: jsonFormat()}
		}
		out = append(out, &accesslogv3.AccessLog{
			Name:       "envoy.access_loggers.stdout",
			Filter:     sampled(b.notQuiet(), share),
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(stdout)},
		})
	}
	if b.settings.TraceLog != "" {
		out = append(out, b.traceLog(b.settings.TraceLog))
	}
	return out
}

func jsonFormat() *corev3.SubstitutionFormatString {
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, value := range logFields {
		fields.Fields[name] = structpb.NewStringValue(value)
	}
	return &corev3.SubstitutionFormatString{
		Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
		OmitEmptyValues: true,
	}
}

// sampled takes so many of 1,000 requests of those that a filter takes.
func sampled(filter *accesslogv3.AccessLogFilter, perMille uint32) *accesslogv3.AccessLogFilter {
	if perMille >= 1000 {
		return filter
	}
	random := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{RuntimeFilter: &accesslogv3.RuntimeFilter{
		RuntimeKey:               "hythe.access_log",
		PercentSampled:           &typev3.FractionalPercent{Numerator: perMille * 10, Denominator: typev3.FractionalPercent_TEN_THOUSAND},
		UseIndependentRandomness: true,
	}}}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{filter, random}},
	}}
}

// tracing sends spans of OpenTelemetry to a collector. Clients cannot ask for them, neither by x-client-trace-id nor by the
// flag of a traceparent: whose costs they are decides.
func (b *builder) tracing() *hcmv3.HttpConnectionManager_Tracing {
	if b.observe.Tracing == "" {
		return nil
	}
	collector := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: b.observe.Tracing},
	}}
	return &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling: &typev3.Percent{},
		RandomSampling: &typev3.Percent{Value: float64(b.observe.TracePerMille) / 10},
		CustomTags: []*tracingv3.CustomTag{
			{Tag: "hythe.ingress", Type: &tracingv3.CustomTag_Value{Value: "%ROUTE_NAME%"}},
		},
		Provider: &tracev3.Tracing_Http{
			Name: "envoy.tracers.opentelemetry",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: b.any(&tracev3.OpenTelemetryConfig{
				GrpcService: collector, ServiceName: "hythe",
			})},
		},
	}
}

// collectors are the clusters that listeners need for tracing.
func (b *builder) collectors() []string {
	if b.observe.Tracing == "" {
		return nil
	}
	return []string{b.observe.Tracing}
}
