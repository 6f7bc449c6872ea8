package gateway

import (
	"strconv"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// Observe is what an administrator wants to be told of requests. The zero value leaves it to the flags.
type Observe struct {
	// Log is LogText or LogJSON; empty for what flags say.
	Log LogFormat
	// LogPerMille is of how many of 1,000 requests there is a line, where Log is set.
	LogPerMille uint32
	// Tracing is the Name of the Backend that takes spans (OTLP over gRPC), of TracePerMille of 1,000 requests; empty for none.
	Tracing       string
	TracePerMille uint32
}

// A LogFormat is how the access log is written.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// String is "log=json/10 tracing=obs/collector:4317/1"; empty for the zero value.
func (o Observe) String() string {
	out := ""
	if o.Log != "" {
		out += " log=" + string(o.Log) + "/" + strconv.Itoa(int(o.LogPerMille))
	}
	if o.Tracing != "" {
		out += " tracing=" + o.Tracing + "/" + strconv.Itoa(int(o.TracePerMille))
	}
	return out
}

// buildObserve reads what is asked for. The target is the collector of spans, if there is one.
func (x *index) buildObserve(asked v1alpha1.Observe, from string) (out Observe, collector *target, problems []model.Problem) {
	ref := model.ObjectRef{Kind: "GatewayConfig", Name: from}
	switch format := LogFormat(asked.AccessLog.Format); format {
	case "":
	case LogText, LogJSON:
		out.Log, out.LogPerMille = format, 1000
		if n := asked.AccessLog.SamplePerMille; n != nil {
			out.LogPerMille = perMille(*n)
		}
	default:
		problems = append(problems, model.Problemf(ref, "InvalidAccessLog", "spec.observe.accessLog.format %s is neither text nor json; it has no effect", quote(string(format))))
	}
	tracing := asked.Tracing
	if tracing.Service.Name == "" {
		return out, nil, problems
	}
	port, refused := resolve(x.snapshot.Services, tracing.Service.Namespace, &networkingv1.IngressBackend{
		Service: &networkingv1.IngressServiceBackend{Name: tracing.Service.Name, Port: networkingv1.ServiceBackendPort{Number: tracing.Port}},
	})
	if refused != nil {
		return out, nil, append(problems, model.Problemf(ref, refused.reason, "spec.observe.tracing: %s; no spans are sent", refused.message))
	}
	to := target{port, policy.Backend{Protocol: policy.H2C}}
	out.Tracing, out.TracePerMille = to.name(), perMille(tracing.SamplePerMille)
	return out, &to, problems
}

func perMille(n int32) uint32 { return uint32(min(max(n, 0), 1000)) }
