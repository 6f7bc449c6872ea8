package gateway

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// What a panic at one object costs. Nothing is remembered from Builds before: what was served then may be what the owner
// has forbidden since, and two gateways, one of which was restarted, would serve different things.

// containHost is buildHost. A host whose rules cannot be built answers 503: neither a wider host nor the rest of its rules
// may answer in its place, since what is missing may be what protects.
func (x *index) containHost(name string) (host Host, ports []target, problems []model.Problem) {
	object := model.ObjectRef{Kind: "Host", Name: name}
	if requests := x.byHost[x.rulesOf(name)]; len(requests) > 0 {
		object = model.Ref("Ingress", requests[0].key)
	}
	fault := model.Contain(object, "Requests for host "+name+" are answered 503", func() { host, ports, problems = x.buildHost(name) })
	if fault == nil {
		return host, ports, problems
	}
	host = Host{Name: name, Certificate: DefaultCertificateName, Routes: []Route{{Match: Prefix, Path: "/", Status: 503}}}
	_ = model.Contain(object, "", func() { host.Certificate = x.certificates.of(name) })
	return host, nil, fault
}

// containEndpoints is buildEndpoints. A Backend without endpoints answers 503.
func containEndpoints(name string, t target, s *model.Snapshot, own model.Own) (set EndpointSet, problems []model.Problem) {
	fault := model.Contain(model.Ref("Service", t.service), "Requests for its port "+name+" are answered 503", func() {
		if t.settings.ServiceAddress {
			set, problems = buildServiceAddress(t, s.Endpoints.Get(t.service), own, model.ClusterIPs(s.Services.Get(t.service)))
			return
		}
		set, problems = buildEndpoints(t.servicePort, s.Endpoints.Get(t.service), own)
	})
	if fault != nil {
		return EndpointSet{Name: name}, fault
	}
	return set, problems
}

// readRequests reads the Ingresses that are Hythe's, each alone.
func readRequests(s *model.Snapshot, classes *classes) ([]*request, []model.Problem) {
	var requests []*request
	var problems []model.Problem
	for key, ing := range s.Ingresses.All() {
		if ing == nil {
			continue
		}
		ours := false
		fault := model.Contain(model.Ref("Ingress", key), "Its hosts are answered 503 where no other Ingress of its namespace serves a path", func() {
			if ours = classes.foreign(className(ing)) == ""; ours {
				r, more := newRequest(key, ing, classes.mayCatchAll(key.Namespace, className(ing)), classes.configOf(className(ing)))
				requests, problems = append(requests, r), append(problems, more...)
			}
		})
		problems = append(problems, fault...)
		if fault != nil && ours {
			requests = append(requests, faultyRequest(key, ing, fault[0]))
		}
	}
	slices.SortFunc(requests, older)
	return requests, problems
}

// faultyRequest holds the hosts of an Ingress that cannot be read, as far as these can be, so that they are given to no
// other namespace.
func faultyRequest(key model.Key, ing *networkingv1.Ingress, fault model.Problem) *request {
	r := &request{
		key: key, ingress: ing, paths: map[string][]path{}, tlsNames: map[string]bool{},
		refused: &refusal{fault.Reason, fault.Message},
	}
	unknown := &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: "unknown", Port: networkingv1.ServiceBackendPort{Number: 1},
	}}
	for i := range ing.Spec.Rules {
		_ = contain.Do(func() { // told already
			if host, err := checkHost(ing.Spec.Rules[i].Host); err == nil {
				r.paths[host] = []path{{match: Prefix, path: "/", backend: unknown, from: r}}
			}
		})
	}
	return r
}

// settleOwners gives each host to one namespace: where there is a panic, to that of the oldest Ingress.
func (x *index) settleOwners() []model.Problem {
	var problems []model.Problem
	for host, asked := range x.byHost {
		fault := model.Contain(model.Ref("Ingress", asked[0].key), "Host "+host+" stays with its namespace", func() {
			own, lost := settleOwner(host, asked)
			x.byHost[host] = own
			problems = append(problems, lost...)
		})
		if fault != nil {
			x.byHost[host] = slices.DeleteFunc(slices.Clone(asked), func(r *request) bool { return r.key.Namespace != asked[0].key.Namespace })
		}
		problems = append(problems, fault...)
	}
	return problems
}
