package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

const (
	// healthInterval is the time between two health checks where nothing is said.
	healthInterval = 10 * time.Second
	// mostCount and mostSeconds bound the numbers in annotations.
	mostCount, mostSeconds = 1_000_000, 3600
)

// podsOf reads how the endpoints of a Service are treated, from its annotations. What cannot be read stays as the GatewayConfig has
// it, and is told.
func podsOf(service *corev1.Service, defaults v1alpha1.PodDefaults) (policy.Pods, []model.Problem) {
	out := policy.Pods{
		EjectAfter: count(defaults.EjectAfter), MaxConnections: count(defaults.MaxConnections), MaxRequests: count(defaults.MaxRequests),
		SlowStart: time.Duration(min(count(defaults.SlowStart), mostSeconds)) * time.Second,
	}
	if service == nil {
		return out, nil
	}
	var problems []model.Problem
	number := func(annotation string, least, most uint64, set func(n uint32)) {
		value, ok := service.Annotations[annotation]
		if !ok {
			return
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n < least || n > most {
			problems = append(problems, podsProblem(service, annotation, fmt.Sprintf("is no number from %d to %d", least, most)))
			return
		}
		set(uint32(n))
	}
	number(v1alpha1.EjectAfterAnnotation, 0, 1000, func(n uint32) { out.EjectAfter = n })
	number(v1alpha1.MaxConnectionsAnnotation, 0, mostCount, func(n uint32) { out.MaxConnections = n })
	number(v1alpha1.MaxRequestsAnnotation, 0, mostCount, func(n uint32) { out.MaxRequests = n })
	number(v1alpha1.SlowStartAnnotation, 0, mostSeconds, func(n uint32) { out.SlowStart = time.Duration(n) * time.Second })
	out.HealthCheck = healthCheck(service.Annotations[v1alpha1.HealthCheckAnnotation])
	if out.HealthCheck.Kind == policy.NoHealthCheck && service.Annotations[v1alpha1.HealthCheckAnnotation] != "" {
		problems = append(problems, podsProblem(service, v1alpha1.HealthCheckAnnotation, "is neither a path, nor tcp or grpc"))
	}
	number(v1alpha1.HealthIntervalAnnotation, 1, mostSeconds, func(n uint32) {
		if out.HealthCheck.Kind != policy.NoHealthCheck {
			out.HealthCheck.Interval = time.Duration(n) * time.Second
		}
	})
	return out, problems
}

func podsProblem(service *corev1.Service, annotation, fault string) model.Problem {
	ref := model.ObjectRef{Kind: "Service", Namespace: service.Namespace, Name: service.Name}
	return model.Problemf(ref, "InvalidAnnotation", "annotation %s %s; it has no effect", annotation, fault)
}

func count(n int32) uint32 { return uint32(min(max(n, 0), mostCount)) }

// healthCheck reads "/healthz", "tcp" or "grpc".
func healthCheck(value string) policy.HealthCheck {
	visible := func(r rune) bool { return r > ' ' && r < 0x7f && r != '#' }
	switch {
	case value == "tcp":
		return policy.HealthCheck{Kind: policy.HealthTCP, Interval: healthInterval}
	case value == "grpc":
		return policy.HealthCheck{Kind: policy.HealthGRPC, Interval: healthInterval}
	case strings.HasPrefix(value, "/") && len(value) <= 1000 && !strings.ContainsFunc(value, func(r rune) bool { return !visible(r) }):
		return policy.HealthCheck{Kind: policy.HealthHTTP, Path: value, Interval: healthInterval}
	}
	return policy.HealthCheck{}
}

// backends are the Backends of targets, in the order of names.
func (x *index) backends(used map[string]target, names []string) (out []Backend, problems []model.Problem) {
	told := map[model.Key]bool{}
	for _, name := range names {
		t := used[name]
		b := Backend{Name: name, Endpoints: t.endpoints(), Backend: t.settings}
		fault := model.Contain(model.Ref("Service", t.service), "Its annotations have no effect", func() {
			var more []model.Problem
			b.Pods, more = podsOf(x.snapshot.Services.Get(t.service), x.pods)
			if !told[t.service] {
				problems = append(problems, more...)
			}
		})
		if !told[t.service] {
			problems = append(problems, fault...)
		}
		told[t.service] = true
		out = append(out, b)
	}
	return out, slices.Clip(problems)
}
