package cluster

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/internal/model"
)

// Slices returns the EndpointSlices of all Services that have a selector, sorted by name. Pods whose named ports differ
// get slices of their own. It is pure.
func Slices(services map[Key]*corev1.Service, pods []*Pod) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, k := range model.SortedKeys(services) {
		if s := services[k]; len(s.Spec.Selector) > 0 && s.Spec.Type != corev1.ServiceTypeExternalName {
			out = append(out, slicesOf(s, pods)...)
		}
	}
	return out
}

func slicesOf(s *corev1.Service, pods []*Pod) []*discoveryv1.EndpointSlice {
	byPorts := map[string]*discoveryv1.EndpointSlice{}
	for _, p := range pods {
		if p.Key.Namespace != s.Namespace || !p.Address.IsValid() || !selects(s.Spec.Selector, p.Labels) {
			continue
		}
		ports := resolve(s, p)
		id := portsID(ports)
		slice := byPorts[id]
		if slice == nil {
			slice = newSlice(s, id, ports)
			byPorts[id] = slice
		}
		slice.Endpoints = append(slice.Endpoints, endpoint(s, p))
	}
	var out []*discoveryv1.EndpointSlice
	for _, slice := range byPorts {
		slices.SortFunc(slice.Endpoints, func(a, b discoveryv1.Endpoint) int {
			return strings.Compare(a.TargetRef.Name, b.TargetRef.Name)
		})
		out = append(out, slice)
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// resolve finds the pod's ports behind those of the Service.
func resolve(s *corev1.Service, p *Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, port := range s.Spec.Ports {
		number, ok := targetPort(port, p)
		if ok {
			out = append(out, discoveryv1.EndpointPort{Name: &port.Name, Protocol: &port.Protocol, Port: &number})
		}
	}
	return out
}

func targetPort(port corev1.ServicePort, p *Pod) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		return port.TargetPort.IntVal, true
	}
	for _, c := range p.Spec.Containers {
		for _, cp := range c.Ports {
			sameProtocol := cp.Protocol == port.Protocol || cp.Protocol == "" && port.Protocol == corev1.ProtocolTCP
			if cp.Name == port.TargetPort.StrVal && sameProtocol {
				return cp.ContainerPort, true
			}
		}
	}
	return 0, false
}

func portsID(ports []discoveryv1.EndpointPort) string {
	var parts []string
	for _, p := range ports {
		parts = append(parts, *p.Name, string(*p.Protocol), fmt.Sprint(*p.Port))
	}
	return fmt.Sprintf("%08x", hash(parts...))[:5]
}

func newSlice(s *corev1.Service, id string, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace,
			Name:      s.Name + "-" + id,
			Labels: map[string]string{
				discoveryv1.LabelServiceName: s.Name,
				discoveryv1.LabelManagedBy:   "lab.hythe.dev",
			},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       ports,
	}
}

func endpoint(s *corev1.Service, p *Pod) discoveryv1.Endpoint {
	ready, serving, terminating := p.Ready && !p.Terminating, p.Ready, p.Terminating
	if s.Spec.PublishNotReadyAddresses {
		ready = true
	}
	node := p.Node
	return discoveryv1.Endpoint{
		Addresses:  []string{p.Address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		NodeName:   &node,
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Key.Namespace, Name: p.Key.Name},
	}
}

// Listens returns the TCP and UDP ports on which a container of a pod should answer: those that it declares and, for the
// first container, also those that Services name by number, since a manifest need not declare them.
func Listens(p *Pod, container int, services map[Key]*corev1.Service) []corev1.ContainerPort {
	out := slices.Clone(p.Spec.Containers[container].Ports)
	var declared []corev1.ContainerPort
	for i := range out {
		if out[i].Protocol == "" {
			out[i].Protocol = corev1.ProtocolTCP
		}
	}
	if container != 0 {
		return out
	}
	for _, c := range p.Spec.Containers {
		declared = append(declared, c.Ports...)
	}
	for _, k := range model.SortedKeys(services) {
		s := services[k]
		if k.Namespace != p.Key.Namespace || len(s.Spec.Selector) == 0 || !selects(s.Spec.Selector, p.Labels) {
			continue
		}
		for _, sp := range s.Spec.Ports {
			same := func(cp corev1.ContainerPort) bool { return cp.ContainerPort == sp.TargetPort.IntVal }
			if sp.TargetPort.IntVal != 0 && !slices.ContainsFunc(declared, same) && !slices.ContainsFunc(out, same) {
				out = append(out, corev1.ContainerPort{ContainerPort: sp.TargetPort.IntVal, Protocol: sp.Protocol})
			}
		}
	}
	return out
}
