package gateway

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// ErrorPages is a backend that answers in the place of a Route's own.
type ErrorPages struct {
	// Backend is the Name of the Backend.
	Backend string
	// Statuses are those of answers that are replaced; sorted.
	Statuses []uint32
	// Service and Port are of the backend that failed: the pages are told.
	Service, Port string
}

// errorPages gives a Route its ErrorPages, or sends its requests there where its own backend has nobody who answers. It
// changes nothing where the pages have nobody either. problem is what is wrong with the backend.
func (x *index) errorPages(host string, p path, route *Route, problem *model.Problem) ([]target, []model.Problem, *model.Problem) {
	asked := p.from.asked.ErrorPages
	if asked.Service == "" || x.closed(host, p.from) != nil || p.answer != nil || problem == nil && route.Backend == "" {
		return nil, nil, problem
	}
	own, refused := resolve(x.snapshot.Services, p.from.key.Namespace, p.backend)
	port, lost := x.firstPort(model.Key{Namespace: p.from.key.Namespace, Name: asked.Service})
	if lost != nil {
		return nil, []model.Problem{model.Problemf(model.Ref("Ingress", p.from.key), lost.reason,
			"annotation %sdefault-backend: %s; it has no effect", nginx.Prefix, lost.message)}, problem
	}
	to := target{servicePort: port}
	if !x.ready(port) || to.servicePort.name() == route.Backend {
		return nil, nil, problem
	}
	pages := &ErrorPages{Backend: to.name(), Statuses: asked.Statuses}
	if p.backend.Service != nil {
		pages.Service, pages.Port = p.backend.Service.Name, portOf(p.backend.Service.Port)
	}
	if refused == nil && x.ready(own) {
		if len(asked.Statuses) == 0 {
			return nil, nil, problem
		}
		route.ErrorPages = pages
		return []target{to}, nil, problem
	}
	route.Backend, route.Status = to.name(), 0
	route.protect(p)
	with := policy.Route{}
	if route.Policy != nil {
		with = *route.Policy
	}
	with.RequestHeaders = slices.Concat(with.RequestHeaders, pages.Headers(route.Origin, "503"))
	route.Policy = &with
	if problem != nil {
		told := model.Problemf(model.Ref("Ingress", p.from.key), refused.reason, "%s; Service %s answers, by default-backend", refused.message, port.service)
		problem = &told
	}
	return []target{to}, nil, problem
}

// Headers are what the pages are told of a request that origin's backend failed to answer.
func (e *ErrorPages) Headers(origin model.Key, status string) []policy.Header {
	var out []policy.Header
	for _, h := range [][2]string{
		{"X-Code", status}, {"X-Namespace", origin.Namespace}, {"X-Ingress-Name", origin.Name},
		{"X-Service-Name", e.Service}, {"X-Service-Port", e.Port},
	} {
		if h[1] != "" {
			out = append(out, policy.Header{Name: h[0], Value: policy.Literal(h[1])})
		}
	}
	return append(out,
		policy.Header{Name: "X-Format", Value: []policy.HeaderPart{{Of: policy.HeaderRequest, Text: "accept"}}},
		policy.Header{Name: "X-Original-URI", Value: []policy.HeaderPart{{Of: policy.HeaderRequest, Text: ":path"}}})
}

// firstPort finds the first TCP port of a Service.
func (x *index) firstPort(key model.Key) (servicePort, *refusal) {
	port := networkingv1.ServiceBackendPort{Number: 1}
	if service := x.snapshot.Services.Get(key); service != nil {
		isTCP := func(p corev1.ServicePort) bool { return model.ProtocolOf(&p) == corev1.ProtocolTCP }
		if i := slices.IndexFunc(service.Spec.Ports, isTCP); i >= 0 {
			port.Number = service.Spec.Ports[i].Port
		}
	}
	backend := &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: key.Name, Port: port}}
	return resolve(x.snapshot.Services, key.Namespace, backend)
}

// ready says whether a Service port has an endpoint that takes requests.
func (x *index) ready(p servicePort) bool {
	x.looked[p.service] = true
	set, _ := buildEndpoints(p, x.snapshot.Endpoints.Get(p.service), x.own)
	return len(set.Addresses) > 0
}

func portOf(p networkingv1.ServiceBackendPort) string {
	if p.Name != "" {
		return p.Name
	}
	return portText(p)
}
