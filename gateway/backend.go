package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// A servicePort is a port of a Service that exists.
type servicePort struct {
	service model.Key
	port    *corev1.ServicePort
}

// name is the name of the Backend and the EndpointSet: "shop/web:http", or with the number if the port has no name.
func (p servicePort) name() string {
	port := p.port.Name
	if port == "" {
		port = strconv.Itoa(int(p.port.Port))
	}
	return p.service.String() + ":" + port
}

// A target is a Service port with how it is spoken to: a Backend.
type target struct {
	servicePort
	settings policy.Backend
}

// name is the name of the Backend: that of the Service port, and what settings differ from the default.
func (t target) name() string { return t.servicePort.name() + t.settings.String() }

// A refusal says why requests for a backend are answered 503.
type refusal struct{ reason, message string }

// permanent reports whether b can never work as it is written, whatever Services there are.
func permanent(b *networkingv1.IngressBackend) *refusal {
	switch {
	case b.Resource != nil:
		return &refusal{"ResourceBackend", fmt.Sprintf("backend %s %s is not a Service; only Services are served", b.Resource.Kind, b.Resource.Name)}
	case b.Service == nil || b.Service.Name == "":
		return &refusal{"InvalidBackend", "backend names no Service"}
	case b.Service.Port.Name == "" && b.Service.Port.Number == 0:
		return &refusal{"InvalidBackend", fmt.Sprintf("backend names no port of Service %s", b.Service.Name)}
	}
	return nil
}

// resolve finds the Service port that b means in the given namespace.
func resolve(services model.Objects[*corev1.Service], namespace string, b *networkingv1.IngressBackend) (servicePort, *refusal) {
	if r := permanent(b); r != nil {
		return servicePort{}, r
	}
	key := model.Key{Namespace: namespace, Name: b.Service.Name}
	service := services.Get(key)
	if service == nil {
		return servicePort{}, &refusal{"ServiceNotFound", fmt.Sprintf("Service %s does not exist", key)}
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return servicePort{}, &refusal{"ExternalNameRefused",
			fmt.Sprintf("Service %s is of type ExternalName, which could lead anywhere; give it endpoints instead", key)}
	}
	wanted := b.Service.Port
	var other *corev1.ServicePort // matches, but is not TCP
	for i := range service.Spec.Ports {
		port := &service.Spec.Ports[i]
		if wanted.Name != "" && port.Name != wanted.Name || wanted.Name == "" && port.Port != wanted.Number {
			continue
		}
		if model.ProtocolOf(port) == corev1.ProtocolTCP {
			return servicePort{key, port}, nil
		}
		other = port
	}
	if other != nil {
		return servicePort{}, &refusal{"ProtocolNotSupported",
			fmt.Sprintf("port %s of Service %s is %s; http needs TCP", portText(wanted), key, other.Protocol)}
	}
	return servicePort{}, &refusal{"PortNotFound",
		fmt.Sprintf("Service %s has no port %s; it has %s", key, portText(wanted), portsText(service))}
}

func portText(p networkingv1.ServiceBackendPort) string {
	if p.Name != "" {
		return strconv.Quote(p.Name)
	}
	return strconv.Itoa(int(p.Number))
}

func portsText(service *corev1.Service) string {
	if len(service.Spec.Ports) == 0 {
		return "none"
	}
	var out []string
	for _, p := range service.Spec.Ports {
		text := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// buildEndpoints selects the addresses that new requests for a Service port may be sent to. Those that lead to
// Hythe itself are refused: whoever may write EndpointSlices would reach its admin pages through them
// (CVE-2021-25740 is of that kind).
func buildEndpoints(p servicePort, endpoints *model.ServiceEndpoints, own model.Own) (EndpointSet, []model.Problem) {
	set := EndpointSet{Name: p.name()}
	all := endpoints.Port(p.port.Name, model.ProtocolOf(p.port))
	allowed, problems := own.Allowed(p.service, p.port, all)
	for _, e := range model.Usable(allowed) {
		set.Addresses = append(set.Addresses, netip.AddrPortFrom(e.AddrPort.Addr().Unmap(), e.AddrPort.Port()))
	}
	slices.SortFunc(set.Addresses, netip.AddrPort.Compare)
	set.Addresses = slices.Compact(set.Addresses)
	if len(all) == 0 && endpoints != nil && (endpoints.Unported || len(endpoints.Ports) > 0) {
		problems = append(problems, noSuchTarget(p, endpoints))
	}
	return set, problems
}

// noSuchTarget reports a port that the EndpointSlices of its Service do not have, although there are pods. A Service
// without pods is no Problem.
func noSuchTarget(p servicePort, endpoints *model.ServiceEndpoints) model.Problem {
	var have []string
	for _, port := range endpoints.Ports {
		have = append(have, strconv.Quote(port.Name))
	}
	message := "no pod has it"
	if target := p.port.TargetPort; target.Type == intstr.String {
		message = fmt.Sprintf("no container of its pods has a port named %s, its targetPort", quote(target.StrVal))
	}
	if len(have) > 0 {
		message += "; they have endpoints for " + firstFew(have)
	}
	return model.Problemf(model.Ref("Service", p.service), "TargetPortNotFound",
		"port %s has no endpoints, requests for it are answered 503: %s", p.name()[strings.LastIndexByte(p.name(), ':')+1:], message)
}
