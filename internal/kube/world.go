package kube

import (
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

// A change is one object that is new, other or gone.
type change struct {
	kind   string
	key    model.Key
	object metav1.Object // nil: gone
}

// A world makes each Snapshot of the one before and what changed. The result is what assemble makes of all objects;
// the work is in proportion to the change, but for one copy of each map by name that has a change.
type world struct {
	last *model.Snapshot

	parts     map[model.Key]map[model.Key]*endpointSlice // EndpointSlices by Service
	serviceOf map[model.Key]model.Key                    // by EndpointSlice
	problems  map[string][]model.Problem                 // by Node
	touched   []model.Key                                // Services whose endpoints the last apply made anew
}

func newWorld() *world {
	return &world{
		last:      assemble(),
		parts:     map[model.Key]map[model.Key]*endpointSlice{},
		serviceOf: map[model.Key]model.Key{},
		problems:  map[string][]model.Problem{},
	}
}

// apply returns the Snapshot after some changes. What did not change is shared with the Snapshot before.
func (w *world) apply(changes []change) *model.Snapshot {
	byKind := map[string][]change{}
	for _, c := range changes {
		byKind[c.kind] = append(byKind[c.kind], c)
	}
	next := *w.last
	name := func(k model.Key) string { return k.Name }
	editObjects(&next.Ingresses, byKind["Ingress"])
	edit(&next.IngressClasses, byKind["IngressClass"], name)
	edit(&next.ServiceCIDRs, byKind["ServiceCIDR"], name)
	editObjects(&next.Services, byKind["Service"])
	editObjects(&next.Secrets, byKind["Secret"])
	editObjects(&next.ConfigMaps, byKind["ConfigMap"])
	edit(&next.Pools, byKind["AddressPool"], name)
	edit(&next.Claims, byKind["AddressClaim"], name)
	edit(&next.Reports, byKind["Report"], name)
	edit(&next.GatewayConfigs, byKind["GatewayConfig"], name)
	w.editNodes(&next, byKind["Node"])
	w.editEndpoints(&next, byKind["EndpointSlice"])
	w.last = &next
	return &next
}

// editObjects changes objects, of which Snapshots share those that stay.
func editObjects[V any](o *model.Objects[V], changes []change) {
	e := o.Edit()
	for _, c := range changes {
		if c.object == nil {
			e.Delete(c.key)
		} else {
			e.Set(c.key, any(c.object).(V))
		}
	}
	*o = e.Objects()
}

// edit changes a map that Snapshots share: it makes a new one.
func edit[K comparable, V any](m *map[K]V, changes []change, name func(model.Key) K) {
	if len(changes) == 0 {
		return
	}
	*m = maps.Clone(*m)
	for _, c := range changes {
		if c.object == nil {
			delete(*m, name(c.key))
		} else {
			(*m)[name(c.key)] = any(c.object).(V)
		}
	}
}

func (w *world) editNodes(next *model.Snapshot, changes []change) {
	if len(changes) == 0 {
		return
	}
	next.Nodes = maps.Clone(next.Nodes)
	for _, c := range changes {
		delete(w.problems, c.key.Name)
		if c.object == nil {
			delete(next.Nodes, c.key.Name)
			continue
		}
		node, problems := convertNode(c.object.(*corev1.Node))
		next.Nodes[c.key.Name] = node
		if len(problems) > 0 {
			w.problems[c.key.Name] = problems
		}
	}
	next.Problems = nil
	for _, problems := range w.problems {
		next.Problems = append(next.Problems, problems...)
	}
	next.Problems = model.SortProblems(next.Problems)
}

// editEndpoints merges anew the endpoints of those Services of which an EndpointSlice changed.
func (w *world) editEndpoints(next *model.Snapshot, changes []change) {
	touched := map[model.Key]bool{}
	for _, c := range changes {
		if service, ok := w.serviceOf[c.key]; ok {
			touched[service] = true
			delete(w.parts[service], c.key)
			delete(w.serviceOf, c.key)
		}
		if c.object == nil {
			continue
		}
		slice := compact(c.object).(*endpointSlice)
		if slice.service == "" {
			continue
		}
		service := model.Key{Namespace: slice.Namespace, Name: slice.service}
		touched[service] = true
		w.serviceOf[c.key] = service
		if w.parts[service] == nil {
			w.parts[service] = map[model.Key]*endpointSlice{}
		}
		w.parts[service][c.key] = slice
	}
	fresh := next.Endpoints.Edit()
	w.touched = slices.Collect(maps.Keys(touched))
	for service := range touched {
		merged := mergeSlices(w.parts[service])[service] // nil if there is none left
		if reflect.DeepEqual(merged, next.Endpoints.Get(service)) {
			continue
		}
		if merged == nil {
			fresh.Delete(service)
		} else {
			fresh.Set(service, merged)
		}
	}
	for service := range touched {
		if len(w.parts[service]) == 0 {
			delete(w.parts, service)
		}
	}
	next.Endpoints = fresh.Objects()
}
