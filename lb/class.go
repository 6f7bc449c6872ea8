package lb

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// Ours reports whether a Service is a LoadBalancer Service of Hythe's. Of those without a class some may be another
// controller's all the same, see Build.
func Ours(svc *corev1.Service, settings Settings) bool {
	return svc.DeletionTimestamp == nil && ofOurClass(svc, settings)
}

func ofOurClass(svc *corev1.Service, settings Settings) bool {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return false
	}
	if svc.Spec.LoadBalancerClass == nil {
		return settings.WithoutClass
	}
	return *svc.Spec.LoadBalancerClass == v1alpha1.LoadBalancerClass
}

// given are the addresses that claims give to each Service.
func given(claims map[string]*v1alpha1.AddressClaim) map[model.Key]map[netip.Addr]bool {
	out := map[model.Key]map[netip.Addr]bool{}
	for _, c := range claims {
		_ = contain.Do(func() { // keep tells of it
			a, err := parseAddr(c.Spec.Address)
			if err != nil {
				return
			}
			for _, ref := range c.Spec.Services {
				key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
				if out[key] == nil {
					out[key] = map[netip.Addr]bool{}
				}
				out[key][a] = true
			}
		})
	}
	return out
}

// byAnother returns what another controller wrote into the status of a Service without a class: an address that is
// neither claimed for it nor in a pool, or a name. Two controllers that both write one status never end. What Hythe itself
// wrote is known by the writer, too: claims are watched apart, and may be ahead of the status.
func (b *builder) byAnother(key model.Key, svc *corev1.Service) string {
	if !b.settings.Shared || svc.Spec.LoadBalancerClass != nil || model.WrittenHere(svc) {
		return ""
	}
	first := ""
	for _, in := range svc.Status.LoadBalancer.Ingress {
		a, err := parseAddr(in.IP)
		if err == nil && (b.given[key][a] || b.poolOf(a) != nil) {
			return ""
		}
		first = cmp.Or(first, in.IP, in.Hostname)
	}
	return first
}

// statusOfAnother says whether another controller writes the status of an Ingress without a class, and reports that.
func (b *builder) statusOfAnother(key model.Key) bool {
	ingress := b.snapshot.Ingresses.Get(key)
	if !b.settings.Shared || ingress.Spec.IngressClassName != nil || ingress.Annotations[ingressClassAnnotation] != "" {
		return false
	}
	first := ""
	for _, in := range ingress.Status.LoadBalancer.Ingress {
		a, err := parseAddr(in.IP)
		if err == nil && (b.snapshot.Claims[v1alpha1.ClaimName(a)] != nil || b.poolOf(a) != nil) {
			return false
		}
		first = cmp.Or(first, in.IP, in.Hostname)
	}
	if first != "" {
		b.problems = append(b.problems, model.Problemf(model.Ref("Ingress", key), ReasonServedByAnother, "It names no class, and another controller wrote %s into its status: "+
			"Hythe's gateways serve it, but do not say so there. Give it spec.ingressClassName.", first))
	}
	return first != ""
}

// ingressClassAnnotation is the class of an Ingress from before spec.ingressClassName.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// tellNotTaken reports a Service without a class that waits for an address which nobody gives it: not Hythe, which serves its
// class alone, and so far no other controller. Where there is no pool, nobody expects it of Hythe.
func (b *builder) tellNotTaken(key model.Key, svc *corev1.Service) {
	if b.settings.Release || b.settings.WithoutClass || len(b.snapshot.Pools) == 0 || svc.DeletionTimestamp != nil ||
		svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.Spec.LoadBalancerClass != nil || len(svc.Status.LoadBalancer.Ingress) > 0 {
		return
	}
	b.problem(key, ReasonNotTaken, "It has no spec.loadBalancerClass and no address yet, and Hythe serves only those of the class %s here. Unless another load balancer "+
		"is to take it, create it with that class, or run hythe controller with --without-class.", v1alpha1.LoadBalancerClass)
}

// mine says whether Hythe serves a Service, and reports one that another controller serves already.
func (b *builder) mine(key model.Key, svc *corev1.Service) bool {
	if b.settings.Release || !Ours(svc, b.settings) {
		b.tellNotTaken(key, svc)
		return false
	}
	if other := b.byAnother(key, svc); other != "" {
		b.problem(key, ReasonServedByAnother, "It has no spec.loadBalancerClass, and another controller wrote %s into its status, so Hythe leaves it alone. "+
			"Create it with the class %s to have it served here, or run hythe controller without --without-class.", other, v1alpha1.LoadBalancerClass)
		return false
	}
	return true
}

// finalizer says whether a Service that Hythe serves carries the finalizer: while a claim names it. One that waits for an
// address has nothing to clean up, and when it changed its type nothing would tell that the finalizer is Hythe's: it
// would wait for ever when it is deleted. What is there without claim and class may be another controller's.
func (b *builder) finalizer(w *want) bool {
	svc := b.snapshot.Services.Get(w.key)
	return len(b.claims[w.key]) > 0 || w.frozen || svc.Spec.LoadBalancerClass == nil && slices.Contains(svc.Finalizers, v1alpha1.CleanupFinalizer)
}

// leaving is the status of the Services that Hythe serves no more: its own addresses are taken away, and at last the
// finalizer. A Service that is deleted keeps it until no claim names it: the address is free when the Service is gone.
// One that changed its type names no class any more, so that its last claim is what tells that the finalizer is
// Hythe's: there it goes before the claim.
func (b *builder) leaving() []ServiceStatus {
	var out []ServiceStatus
	for key, svc := range b.snapshot.Services.All() {
		b.contain(model.Ref("Service", key), "Its status stays as it is", func() { out = b.leave(out, key, svc) })
	}
	return out
}

// leave adds the status of one Service to out if it is served no more.
func (b *builder) leave(out []ServiceStatus, key model.Key, svc *corev1.Service) []ServiceStatus {
	other := b.byAnother(key, svc) != ""
	deleted := (svc.DeletionTimestamp != nil || b.settings.Release) && ofOurClass(svc, b.settings) && !other
	if !b.released[key] && !deleted {
		return out
	}
	kept := slices.DeleteFunc(slices.Clone(svc.Status.LoadBalancer.Ingress), func(i corev1.LoadBalancerIngress) bool {
		a, err := parseAddr(i.IP)
		return deleted || err == nil && b.given[key][a]
	})
	waits := deleted && b.released[key] && !b.settings.Release
	theirs := other && slices.Contains(svc.Finalizers, v1alpha1.CleanupFinalizer)
	return append(out, ServiceStatus{Service: key, Ingress: kept, Finalizer: waits || theirs, Yielded: other})
}
