package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/seen"
	"hythe.dev/hythe/internal/model"
)

// A document is the readable content of one file.
type document struct {
	name     string
	objects  []metav1.Object
	problems []model.Problem
	seen     seen.Times // of the one file that holds them
}

// assemble makes a Snapshot of documents. Later layers replace objects of earlier ones; within one layer the
// first of two objects with the same name stands and the second is a Problem.
func assemble(layers ...[]document) *model.Snapshot {
	s := &model.Snapshot{
		IngressClasses: map[string]*networkingv1.IngressClass{},
		Nodes:          map[string]*model.Node{},
		Pools:          map[string]*v1alpha1.AddressPool{},
		GatewayConfigs: map[string]*v1alpha1.GatewayConfig{},
		Claims:         map[string]*v1alpha1.AddressClaim{},
		Reports:        map[string]*v1alpha1.Report{},
		ServiceCIDRs:   map[string]*networkingv1.ServiceCIDR{},
	}
	p := newPile(s)
	times := timesOf(layers)
	for _, layer := range layers {
		files := map[string]string{} // by object
		for _, d := range layer {
			s.Problems = append(s.Problems, d.problems...)
			for _, object := range d.objects {
				ref := refOf(object)
				if first, ok := files[ref.String()]; ok {
					s.Problems = append(s.Problems, model.Problemf(ref, "Duplicate",
						"%s holds it again, %s is used: remove one", d.name, first))
					continue
				}
				files[ref.String()] = d.name
				p.put(created(object, times))
			}
		}
	}
	p.done()
	s.Problems = model.SortProblems(s.Problems)
	return s
}

func timesOf(layers [][]document) seen.Times {
	for _, layer := range layers {
		for _, d := range layer {
			if d.seen != nil {
				return d.seen
			}
		}
	}
	return nil
}

// created returns an object that has no creation time with that at which it was seen first. The object itself is part of
// earlier Snapshots and stays as it is.
func created(object metav1.Object, times seen.Times) metav1.Object {
	if at := object.GetCreationTimestamp(); len(times) == 0 || !at.IsZero() {
		return object
	}
	at, ok := times[seen.Key(kindOf(object), keyOf(object))]
	if !ok {
		return object
	}
	switch o := object.(type) {
	case *networkingv1.Ingress:
		return withTime(*o, at)
	case *corev1.Service:
		return withTime(*o, at)
	case *v1alpha1.AddressPool:
		return withTime(*o, at)
	case *corev1.Node:
		return withTime(*o, at)
	}
	return object
}

// withTime sets the creation time of a copy.
func withTime[T any, P interface {
	*T
	metav1.Object
}](o T, at time.Time) P {
	p := P(&o)
	p.SetCreationTimestamp(metav1.NewTime(at))
	return p
}

func keyOf(o metav1.Object) model.Key {
	return model.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func refOf(o metav1.Object) model.ObjectRef {
	return model.Ref(kindOf(o), keyOf(o))
}

func kindOf(o metav1.Object) string {
	switch o.(type) {
	case *networkingv1.Ingress:
		return "Ingress"
	case *networkingv1.IngressClass:
		return "IngressClass"
	case *networkingv1.ServiceCIDR:
		return "ServiceCIDR"
	case *corev1.Service:
		return "Service"
	case *corev1.Secret:
		return "Secret"
	case *corev1.ConfigMap:
		return "ConfigMap"
	case *corev1.Node:
		return "Node"
	case *corev1.Endpoints: //nolint:staticcheck // see decode.New
		return "Endpoints"
	case *discoveryv1.EndpointSlice, *endpointSlice:
		return "EndpointSlice"
	case *v1alpha1.AddressPool:
		return "AddressPool"
	case *v1alpha1.AddressClaim:
		return "AddressClaim"
	case *v1alpha1.Report:
		return "Report"
	case *v1alpha1.GatewayConfig:
		return "GatewayConfig"
	}
	return "Object"
}

// A pile is a Snapshot that is being made of objects.
type pile struct {
	*model.Snapshot

	ingresses  *model.ObjectsEdit[*networkingv1.Ingress]
	services   *model.ObjectsEdit[*corev1.Service]
	secrets    *model.ObjectsEdit[*corev1.Secret]
	configMaps *model.ObjectsEdit[*corev1.ConfigMap]
	slices     map[model.Key]*endpointSlice
}

func newPile(s *model.Snapshot) pile {
	return pile{s, s.Ingresses.Edit(), s.Services.Edit(), s.Secrets.Edit(), s.ConfigMaps.Edit(), map[model.Key]*endpointSlice{}}
}

func (p pile) done() {
	p.Ingresses, p.Services, p.Secrets, p.ConfigMaps = p.ingresses.Objects(), p.services.Objects(), p.secrets.Objects(), p.configMaps.Objects()
	p.Endpoints = model.ObjectsOf(mergeSlices(p.slices))
}

func (p pile) put(object metav1.Object) {
	switch o := object.(type) {
	case *networkingv1.Ingress:
		p.ingresses.Set(keyOf(o), o)
	case *networkingv1.IngressClass:
		p.IngressClasses[o.Name] = o
	case *networkingv1.ServiceCIDR:
		p.ServiceCIDRs[o.Name] = o
	case *corev1.Service:
		p.services.Set(keyOf(o), o)
	case *corev1.Secret:
		p.secrets.Set(keyOf(o), o)
	case *corev1.ConfigMap:
		p.configMaps.Set(keyOf(o), o)
	case *corev1.Node:
		node, problems := convertNode(o)
		p.Nodes[o.Name] = node
		p.Problems = append(p.Problems, problems...)
	case *corev1.Endpoints: //nolint:staticcheck // see decode.New
		for i, slice := range mirror(o) {
			key := keyOf(o)
			key.Name += fmt.Sprintf("/%d", i) // no EndpointSlice can have that name
			p.slices[key] = compactSlice(slice)
		}
	case *discoveryv1.EndpointSlice:
		p.slices[keyOf(o)] = compactSlice(o)
	case *v1alpha1.AddressPool:
		p.Pools[o.Name] = o
	case *v1alpha1.AddressClaim:
		p.Claims[o.Name] = o
	case *v1alpha1.Report:
		p.Reports[o.Name] = o
	case *v1alpha1.GatewayConfig:
		p.GatewayConfigs[o.Name] = o
	}
}

// toBeDeleted says whether the cluster autoscaler is about to delete a node.
func toBeDeleted(t corev1.Taint) bool { return t.Key == "ToBeDeletedByClusterAutoscaler" }

func convertNode(o *corev1.Node) (*model.Node, []model.Problem) {
	n := &model.Node{Name: o.Name, Created: o.CreationTimestamp.Time, Labels: o.Labels, Unschedulable: o.Spec.Unschedulable, BootID: o.Status.NodeInfo.BootID}
	n.Leaving = o.DeletionTimestamp != nil || slices.ContainsFunc(o.Spec.Taints, toBeDeleted)
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			n.NetworkUnavailable = c.Status
		}
	}
	var problems []model.Problem
	ref := model.ObjectRef{Kind: "Node", Name: o.Name}
	for _, a := range o.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		addr, err := netip.ParseAddr(a.Address)
		if err != nil {
			problems = append(problems, model.Problemf(ref, "InvalidAddress", "InternalIP %q is not an address", a.Address))
			continue
		}
		n.Addresses = append(n.Addresses, addr.Unmap())
	}
	cidrs := o.Spec.PodCIDRs
	if len(cidrs) == 0 && o.Spec.PodCIDR != "" {
		cidrs = []string{o.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		prefix, err := netip.ParsePrefix(c)
		if err != nil {
			problems = append(problems, model.Problemf(ref, "InvalidPodCIDR", "podCIDR %q is not a prefix", c))
			continue
		}
		n.PodCIDRs = append(n.PodCIDRs, prefix.Masked())
	}
	return n, problems
}

// mergeSlices joins the EndpointSlices of each Service. Slices without the label kubernetes.io/service-name
// belong to no Service.
func mergeSlices(all map[model.Key]*endpointSlice) map[model.Key]*model.ServiceEndpoints {
	byService := map[model.Key][]*endpointSlice{}
	for _, key := range model.SortedKeys(all) {
		if slice := all[key]; slice.service != "" {
			service := model.Key{Namespace: slice.Namespace, Name: slice.service}
			byService[service] = append(byService[service], slice)
		}
	}
	merged := make(map[model.Key]*model.ServiceEndpoints, len(byService))
	for service, list := range byService {
		merged[service] = merge(list)
	}
	return merged
}

// merge joins the EndpointSlices of one Service. Of a port that only one of them has, the endpoints are those of the slice: most
// Services have one slice with one port, and so their endpoints are in memory once.
func merge(list []*endpointSlice) *model.ServiceEndpoints {
	type portKey struct {
		name     string
		protocol corev1.Protocol
	}
	merged := &model.ServiceEndpoints{}
	ports := map[portKey][]model.Endpoint{}
	for _, slice := range list {
		merged.Unported = merged.Unported || len(slice.ports) == 0 && len(slice.endpoints) > 0
		for _, p := range slice.ports {
			key, more := portKey{p.name, p.protocol}, slice.at(p)
			if before := ports[key]; len(before) > 0 {
				more = slices.Concat(before, more)
			}
			ports[key] = more
		}
	}
	for key, endpoints := range ports {
		merged.Ports = append(merged.Ports, model.PortEndpoints{Name: key.name, Protocol: key.protocol, Endpoints: inOrder(endpoints)})
	}
	slices.SortFunc(merged.Ports, func(a, b model.PortEndpoints) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol))
	})
	return merged
}

// inOrder returns endpoints sorted, each address and port once, of which the first stays: a copy unless they are so already.
func inOrder(endpoints []model.Endpoint) []model.Endpoint {
	if len(endpoints) == 0 {
		return nil
	}
	for i := 1; i < len(endpoints); i++ {
		if endpoints[i-1].Compare(endpoints[i]) >= 0 {
			endpoints = slices.Clone(endpoints)
			slices.SortStableFunc(endpoints, model.Endpoint.Compare)
			return slices.CompactFunc(endpoints, func(a, b model.Endpoint) bool { return a.AddrPort == b.AddrPort })
		}
	}
	return endpoints
}

// convertEndpoint applies the defaults of discovery.k8s.io/v1: an unset ready means true, an unset serving means
// ready, an unset terminating means false. Of several addresses only the first is used, as the API says.
func convertEndpoint(e *discoveryv1.Endpoint, port uint16, hints hintsOf) (model.Endpoint, bool) {
	if len(e.Addresses) == 0 {
		return model.Endpoint{}, false
	}
	addr, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return model.Endpoint{}, false
	}
	out := model.Endpoint{AddrPort: netip.AddrPortFrom(addr.Unmap(), port)}
	out.Ready = e.Conditions.Ready == nil || *e.Conditions.Ready
	out.Serving = out.Ready
	if e.Conditions.Serving != nil {
		out.Serving = *e.Conditions.Serving
	}
	out.Terminating = e.Conditions.Terminating != nil && *e.Conditions.Terminating
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
		out.Pod = e.TargetRef.Name
	}
	out.Hints = hints.of(e.Hints)
	return out, true
}

// hintsOf are the hints of a Service's endpoints, of which many are alike: each is kept once.
type hintsOf map[string]*model.Hints

func (all hintsOf) of(h *discoveryv1.EndpointHints) *model.Hints {
	if h == nil || len(h.ForZones)+len(h.ForNodes) == 0 {
		return nil
	}
	out := &model.Hints{}
	for _, z := range h.ForZones {
		out.Zones = append(out.Zones, strings.Clone(z.Name))
	}
	for _, n := range h.ForNodes {
		out.Nodes = append(out.Nodes, strings.Clone(n.Name))
	}
	key := strings.Join(out.Zones, ",") + " " + strings.Join(out.Nodes, ",")
	if all[key] == nil {
		all[key] = out
	}
	return all[key]
}

// mirror turns an Endpoints object into EndpointSlices, as the EndpointSliceMirroring controller does.
func mirror(o *corev1.Endpoints) []*discoveryv1.EndpointSlice { //nolint:staticcheck // see decode.New
	var out []*discoveryv1.EndpointSlice
	for _, subset := range o.Subsets {
		slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
		slice.Namespace = o.Namespace
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: o.Name}
		for _, p := range subset.Ports {
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: orTCP(p.Protocol), Port: &p.Port})
		}
		add := func(addresses []corev1.EndpointAddress, ready bool) {
			for _, a := range addresses {
				slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
					Addresses: []string{a.IP}, NodeName: a.NodeName, TargetRef: a.TargetRef,
					Conditions: discoveryv1.EndpointConditions{Ready: &ready},
				})
			}
		}
		add(subset.Addresses, true)
		add(subset.NotReadyAddresses, false)
		out = append(out, slice)
	}
	return out
}

func orTCP(p corev1.Protocol) *corev1.Protocol {
	if p == "" {
		p = corev1.ProtocolTCP
	}
	return &p
}
