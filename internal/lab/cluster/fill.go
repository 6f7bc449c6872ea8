package cluster

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// EchoImage is the image of pods that the lab adds.
const EchoImage = "hythe.dev/echo:v1"

const (
	echoPort        = 8080
	classAnnotation = "kubernetes.io/ingress.class"
)

// Additions are what the lab adds to a folder of manifests. Workloads are in Objects only: nobody but the lab runs them.
type Additions struct {
	Objects *Objects
	// Added and Skipped are a line each, for people.
	Added   []string
	Skipped []string
}

type additions struct {
	Additions
	given *Objects
	ca    *CA
}

// Add finds out what a folder lacks. Always added are the parts of system that make a gateway: a pool, an Envoy
// with its Service, a class. With fill it also adds an echo backend for each Service, and a test certificate for each TLS Secret,
// that an Ingress only names, and makes the classes that Ingresses name Hythe's. given is not changed.
func Add(given, system *Objects, ca *CA, fill bool) Additions {
	a := &additions{Additions: Additions{Objects: NewObjects()}, given: given, ca: ca}
	a.addGateway(system)
	for _, k := range model.SortedKeys(given.Ingresses) {
		if fill {
			a.fillIngress(k, given.Ingresses[k])
		}
	}
	return a.Additions
}

// Merge puts the objects of more into o.
func (o *Objects) Merge(more *Objects) {
	maps.Copy(o.Services, more.Services)
	maps.Copy(o.Slices, more.Slices)
	maps.Copy(o.Secrets, more.Secrets)
	maps.Copy(o.Ingresses, more.Ingresses)
	maps.Copy(o.IngressClasses, more.IngressClasses)
	maps.Copy(o.Pools, more.Pools)
	maps.Copy(o.Workloads, more.Workloads)
}

// List returns those objects of the additions that other processes read, in a fixed order.
func (a Additions) List() []any { return a.Objects.List() }

// List returns the objects that other processes read, but for the Services, in a fixed order.
func (o *Objects) List() []any {
	var out []any
	for _, name := range slices.Sorted(maps.Keys(o.IngressClasses)) {
		out = append(out, o.IngressClasses[name])
	}
	for _, name := range slices.Sorted(maps.Keys(o.Pools)) {
		out = append(out, o.Pools[name])
	}
	for _, k := range model.SortedKeys(o.Secrets) {
		out = append(out, o.Secrets[k])
	}
	for _, k := range model.SortedKeys(o.Ingresses) {
		out = append(out, o.Ingresses[k])
	}
	for _, k := range model.SortedKeys(o.Slices) {
		out = append(out, o.Slices[k])
	}
	return out
}

func (a *additions) addGateway(system *Objects) {
	if len(a.given.Pools) == 0 {
		for name, pool := range system.Pools {
			a.Objects.Pools[name] = pool
			a.added("AddressPool %s with %v", name, pool.Spec.Addresses)
		}
	}
	ours := func(c *networkingv1.IngressClass) bool { return c.Spec.Controller == v1alpha1.IngressController }
	if !slices.ContainsFunc(slices.Collect(maps.Values(a.given.IngressClasses)), ours) {
		for name, class := range system.IngressClasses {
			if a.given.IngressClasses[name] == nil {
				a.Objects.IngressClasses[name] = class
				a.added("IngressClass %s, the default one", name)
			}
		}
	}
	for _, w := range a.given.Workloads {
		if runsEnvoy(w) {
			return
		}
	}
	for k, w := range system.Workloads {
		a.Objects.Workloads[k] = w
		a.added("%s %s/%s", k.Kind, k.Namespace, k.Name)
	}
	for k, s := range system.Services {
		a.Objects.Services[k] = s
		a.added("Service %s, of type %s", k, s.Spec.Type)
	}
}

func runsEnvoy(w *Workload) bool {
	return slices.ContainsFunc(w.Template.Spec.Containers, IsEnvoy)
}

func (a *additions) fillIngress(k Key, ing *networkingv1.Ingress) {
	a.fillClass(ing)
	backends, hosts := backendsOf(ing), hostsOf(ing)
	for _, b := range backends {
		a.fillService(Key{Namespace: k.Namespace, Name: b.Name}, b.Port)
	}
	for _, t := range ing.Spec.TLS {
		names := t.Hosts
		if len(names) == 0 {
			names = hosts
		}
		a.fillSecret(Key{Namespace: k.Namespace, Name: t.SecretName}, names)
	}
}

func (a *additions) fillClass(ing *networkingv1.Ingress) {
	name := ing.Annotations[classAnnotation]
	if ing.Spec.IngressClassName != nil {
		name = *ing.Spec.IngressClassName
	}
	if name == "" || a.Objects.IngressClasses[name] != nil {
		return
	}
	given := a.given.IngressClasses[name]
	if given != nil && given.Spec.Controller == v1alpha1.IngressController {
		return
	}
	class := &networkingv1.IngressClass{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IngressClass"},
		// A folder of manifests has one author, who may serve all hosts.
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.CatchAllAnnotation: "*"}},
		Spec:       networkingv1.IngressClassSpec{Controller: v1alpha1.IngressController},
	}
	if given != nil && given.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "" {
		class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] = given.Annotations[networkingv1.AnnotationIsDefaultIngressClass]
	}
	a.Objects.IngressClasses[name] = class
	a.added("IngressClass %s, now Hythe's", name)
}

func backendsOf(ing *networkingv1.Ingress) []networkingv1.IngressServiceBackend {
	var out []networkingv1.IngressServiceBackend
	add := func(b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil && b.Service.Name != "" {
			out = append(out, *b.Service)
		}
	}
	add(ing.Spec.DefaultBackend)
	for _, r := range ing.Spec.Rules {
		if r.HTTP == nil {
			continue
		}
		for i := range r.HTTP.Paths {
			add(&r.HTTP.Paths[i].Backend)
		}
	}
	return out
}

func hostsOf(ing *networkingv1.Ingress) []string {
	var out []string
	for _, r := range ing.Spec.Rules {
		if r.Host != "" && !slices.Contains(out, r.Host) {
			out = append(out, r.Host)
		}
	}
	return out
}

func (a *additions) fillService(k Key, port networkingv1.ServiceBackendPort) {
	s := a.given.Services[k]
	switch {
	case s == nil:
		a.addService(k, port)
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		a.skipped("Service %s: it is an ExternalName", k)
	case len(s.Spec.Selector) == 0:
		a.skipped("Service %s: it has no selector, its endpoints are elsewhere", k)
	case !a.hasPods(k.Namespace, s.Spec.Selector):
		a.addEcho(k, s.Spec.Selector, s.Spec.Ports)
	}
}

// hasPods says whether a workload of the folder has pods that the selector selects.
func (a *additions) hasPods(namespace string, selector map[string]string) bool {
	for _, objects := range []*Objects{a.given, a.Objects} {
		for k, w := range objects.Workloads {
			if k.Namespace == namespace && selects(selector, w.Template.Labels) {
				return true
			}
		}
	}
	return false
}

// addService adds a Service that is only named, or one more port to one that was added before.
func (a *additions) addService(k Key, port networkingv1.ServiceBackendPort) {
	s := a.Objects.Services[k]
	labels := map[string]string{"lab.hythe.dev/fill": k.Name}
	if s == nil {
		s = &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name},
			Spec:       corev1.ServiceSpec{Selector: labels},
		}
		a.Objects.Services[k] = s
		a.addEcho(k, labels, nil)
	}
	same := func(p corev1.ServicePort) bool {
		return port.Name != "" && p.Name == port.Name || port.Name == "" && p.Port == port.Number
	}
	if slices.ContainsFunc(s.Spec.Ports, same) {
		return
	}
	p := corev1.ServicePort{Name: port.Name, Port: port.Number, TargetPort: intstr.FromInt32(echoPort)}
	if p.Name == "" {
		p.Name = fmt.Sprintf("port-%d", p.Port)
	}
	for p.Port = max(p.Port, 80); slices.ContainsFunc(s.Spec.Ports, func(o corev1.ServicePort) bool { return o.Port == p.Port }); {
		p.Port++
	}
	if port.Number > 0 {
		p.Port = port.Number
	}
	s.Spec.Ports = append(s.Spec.Ports, p)
}

// addEcho adds pods for a Service: two echo servers that have the ports that the Service asks for.
func (a *additions) addEcho(k Key, labels map[string]string, ports []corev1.ServicePort) {
	c := corev1.Container{Name: "echo", Image: EchoImage}
	for _, p := range ports {
		if p.TargetPort.StrVal != "" {
			c.Ports = append(c.Ports, corev1.ContainerPort{
				Name: p.TargetPort.StrVal, ContainerPort: int32(echoPort + len(c.Ports)), Protocol: p.Protocol,
			})
		}
	}
	if len(ports) == 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: echoPort}}
	}
	w := &Workload{
		Key:      WorkloadKey{Kind: "Deployment", Namespace: k.Namespace, Name: k.Name + "-echo"},
		Replicas: 2,
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{c}},
		},
	}
	w.MaxSurge = *defaultRolling().MaxSurge
	a.Objects.Workloads[w.Key] = w
	a.added("two echo pods for Service %s", k)
}

func (a *additions) fillSecret(k Key, names []string) {
	if k.Name == "" || a.given.Secrets[k] != nil {
		return
	}
	if before := a.Objects.Secrets[k]; before != nil {
		return
	}
	names = a.namesFor(k, names)
	pair, err := a.ca.issue(names)
	if err != nil {
		a.skipped("Secret %s: %v", k, err)
		return
	}
	a.Objects.Secrets[k] = &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{corev1.TLSCertKey: pair.chain, corev1.TLSPrivateKeyKey: pair.key},
	}
	a.added("test certificate in Secret %s for %v", k, names)
}

// namesFor collects the host names of all Ingresses that name the Secret.
func (a *additions) namesFor(k Key, names []string) []string {
	out := slices.Clone(names)
	for _, ik := range model.SortedKeys(a.given.Ingresses) {
		for _, t := range a.given.Ingresses[ik].Spec.TLS {
			if ik.Namespace == k.Namespace && t.SecretName == k.Name {
				out = append(out, t.Hosts...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (a *additions) added(format string, args ...any) {
	a.Added = append(a.Added, fmt.Sprintf(format, args...))
}

func (a *additions) skipped(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !slices.Contains(a.Skipped, line) {
		a.Skipped = append(a.Skipped, line)
	}
}
