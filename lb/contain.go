package lb

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// What a panic at one object costs: addresses that were given stay given, and nothing new is given to it.

// contain does what is about one object and reports whether it came to its end.
func (b *builder) contain(object model.ObjectRef, cost string, f func()) bool {
	fault := model.Contain(object, cost, f)
	b.problems = append(b.problems, fault...)
	return fault == nil
}

// containWant returns what read does. A Service that cannot be read wants to keep what it has.
func (b *builder) containWant(key model.Key, read func() *want) (w *want) {
	if b.contain(model.Ref("Service", key), "It keeps the addresses that it has, and gets no other", func() { w = read() }) {
		return w
	}
	if len(b.given[key]) == 0 {
		return nil
	}
	return &want{key: key, bad: true, families: []family{{is6: false}, {is6: true, optional: true}}}
}

// containClaims does something about the claims of one Service, or leaves them as they are.
func (b *builder) containClaims(w *want, f func()) {
	before := slices.Clone(b.claims[w.key])
	if !b.contain(model.Ref("Service", w.key), "It keeps the addresses that it has, and gets no other", f) {
		b.claims[w.key] = before
	}
}

// keepStuck keeps a claim that cannot be read, as it is, and what its Services have.
func (b *builder) keepStuck(c *v1alpha1.AddressClaim, wants map[model.Key]*want) {
	b.stuck = append(b.stuck, c)
	_ = contain.Do(func() { // told already
		for _, ref := range c.Spec.Services {
			if w := wants[model.Key{Namespace: ref.Namespace, Name: ref.Name}]; w != nil {
				w.bad, w.frozen = true, true
			}
		}
	})
}

// statusOf is the status of a Service that is served; where it cannot be told, what stands there already.
func (b *builder) statusOf(w *want) ServiceStatus {
	mode := corev1.LoadBalancerIPModeVIP
	st := ServiceStatus{Service: w.key, Finalizer: b.finalizer(w)}
	good := !w.frozen && b.contain(model.Ref("Service", w.key), "Its status stays as it is", func() {
		for _, a := range b.addresses(w.key) {
			st.Ingress = append(st.Ingress, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &mode})
		}
	})
	if !good {
		st.Ingress = slices.Clone(b.snapshot.Services.Get(w.key).Status.LoadBalancer.Ingress)
	}
	return st
}
