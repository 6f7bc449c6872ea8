package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// Skipped lists the Ingresses of s that Build does not look at, sorted by namespace and name. They are no
// Problems, since another controller may serve them.
func Skipped(s *model.Snapshot, settings Settings) []SkippedIngress {
	c := newClasses(s, settings)
	var out []SkippedIngress
	for _, k := range s.Ingresses.SortedKeys() {
		if s.Ingresses.Get(k) == nil {
			continue
		}
		class := className(s.Ingresses.Get(k))
		if reason := c.foreign(class); reason != "" {
			out = append(out, SkippedIngress{Ingress: k, Class: class, Reason: reason})
		}
	}
	return out
}

// className is the class that an Ingress names. The old annotation goes before the field, as the API's
// documentation of IngressSpec.ingressClassName demands.
func className(ing *networkingv1.Ingress) string {
	if class := ing.Annotations[classAnnotation]; class != "" {
		return class
	}
	if ing.Spec.IngressClassName != nil {
		return *ing.Spec.IngressClassName
	}
	return ""
}

// classAnnotation is the annotation that named the class before IngressClass existed.
const classAnnotation = "kubernetes.io/ingress.class"

// classes knows which Ingresses are Hythe's.
type classes struct {
	objects      map[string]*networkingv1.IngressClass
	explicit     []string
	withoutClass bool
	catchAll     []string
	// defaults are the classes marked as default, the effective one first.
	defaults []*networkingv1.IngressClass
	faults   []model.Problem
	// configs are the GatewayConfigs that classes name, by class.
	configs map[string]classConfig
}

func newClasses(s *model.Snapshot, settings Settings) classes {
	c := classes{objects: s.IngressClasses, explicit: settings.Classes, withoutClass: settings.WithoutClass, catchAll: settings.CatchAllNamespaces}
	for name, class := range s.IngressClasses {
		c.faults = append(c.faults, model.Contain(model.ObjectRef{Kind: "IngressClass", Name: name}, "It is no default class", func() {
			if class != nil && class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
				c.defaults = append(c.defaults, class)
			}
		})...)
	}
	// The API server's admission takes the newest default class, then the first by name.
	slices.SortFunc(c.defaults, func(a, b *networkingv1.IngressClass) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	c.readConfigs(s.GatewayConfigs)
	return c
}

// foreign says why Ingresses of the named class are not Hythe's, and nothing when they are.
func (c *classes) foreign(class string) string {
	if class == "" {
		return c.foreignWithoutClass()
	}
	if slices.Contains(c.explicit, class) {
		return ""
	}
	object := c.objects[class]
	switch {
	case object == nil:
		return fmt.Sprintf("class %s has no IngressClass object", class)
	case object.Spec.Controller != v1alpha1.IngressController:
		return fmt.Sprintf("class %s belongs to %s", class, object.Spec.Controller)
	}
	return ""
}

func (c *classes) foreignWithoutClass() string {
	switch {
	case c.withoutClass:
		return ""
	case len(c.defaults) == 0:
		return "it names no class, and there is no default class"
	case slices.Contains(c.explicit, c.defaults[0].Name):
		return ""
	case c.defaults[0].Spec.Controller != v1alpha1.IngressController:
		return fmt.Sprintf("it names no class, and the default class %s belongs to %s",
			c.defaults[0].Name, c.defaults[0].Spec.Controller)
	}
	return ""
}

// mayCatchAll reports whether Ingresses of a namespace and class may serve hosts that nobody names. Whoever does sees
// the requests, with their cookies, of every name that leads to the gateway: that is for administrators to allow, who
// alone write IngressClasses and flags.
func (c *classes) mayCatchAll(namespace, class string) bool {
	allowed := func(list []string) bool { return slices.Contains(list, "*") || slices.Contains(list, namespace) }
	if allowed(c.catchAll) {
		return true
	}
	object := c.objects[class]
	if class == "" && len(c.defaults) > 0 {
		object = c.defaults[0]
	}
	if object == nil {
		return false
	}
	list := strings.Split(object.Annotations[v1alpha1.CatchAllAnnotation], ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return allowed(list)
}

// problems reports classes of Hythe's that are not as their owner may think.
func (c *classes) problems() []model.Problem {
	out := c.faults
	if len(c.defaults) > 1 {
		names := make([]string, len(c.defaults))
		for i, class := range c.defaults {
			names[i] = class.Name
		}
		for _, class := range c.defaults {
			if c.foreign(class.Name) == "" {
				out = append(out, classProblem(class, "SeveralDefaultClasses",
					"%s are all marked as the default class; %s is taken, the newest or the first by name",
					strings.Join(slices.Sorted(slices.Values(names)), ", "), names[0]))
			}
		}
	}
	return out
}

func classProblem(class *networkingv1.IngressClass, reason, format string, args ...any) model.Problem {
	return model.Problemf(model.ObjectRef{Kind: "IngressClass", Name: class.Name}, reason, format, args...)
}
