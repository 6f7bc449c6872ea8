package server

import (
	"cmp"
	"slices"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/xds"
)

// A Status is how far the connected Envoys are.
type Status struct {
	// Streams counts the connected Envoys.
	Streams int
	// Ready is true when there are Envoys, and each has once acknowledged all of a configuration.
	Ready bool
	// Outstanding counts the resources that some Envoy has not acknowledged and that were not set aside.
	Outstanding int
	// Hosts are the gateway.Host names that all Envoys have in their current version.
	Hosts []string
	// Ingresses are those that all Envoys serve: each host of them has come to Envoy, perhaps in an earlier
	// version that they have part in already.
	Ingresses []model.Key
	// Refused are the resources that Envoy did not take.
	Refused []Refusal
}

// A Refusal is a version of a resource that Envoy did not take, and why.
type Refusal struct {
	Kind    xds.Kind
	Name    string
	Version string // empty if it is the removal that was refused
	Reason  string // Envoy's own words
	Objects []model.ObjectRef
}

// Problems names the Ingresses and Secrets behind what Envoy refused.
func (s Status) Problems() []model.Problem {
	var out []model.Problem
	for _, r := range s.Refused {
		resource := &xds.Resource{Kind: r.Kind, Name: r.Name, Objects: r.Objects}
		out = append(out, resource.Problem("RefusedByEnvoy", r.Reason)...)
	}
	return model.SortProblems(out)
}

// progress is the part of one machine in a Status.
type progress struct {
	outstanding int
	settled     bool
	refused     []Refusal
}

func (m *machine) progress() progress {
	var p progress
	if m.target == nil {
		return p
	}
	m.memo = memo{}
	p.settled = m.settled(false)
	for _, l := range m.lanes {
		if l.flight != nil {
			p.outstanding += len(l.flight.items)
		}
		for _, half := range l.halves {
			p.outstanding += len(half)
		}
		for name := range l.pending {
			if _, s := m.want(l, name); s == due || s == waiting {
				p.outstanding++
			}
		}
		for name, r := range l.refused {
			if (item{resource: m.get(l.kind, name)}).version() != r.item.version() {
				continue // it is not what is wanted any more
			}
			p.refused = append(p.refused, r.refusal(l.kind))
		}
	}
	return p
}

func (r refusal) refusal(kind xds.Kind) Refusal {
	out := Refusal{Kind: kind, Name: r.item.name, Version: r.item.version(), Reason: r.reason}
	if r.item.resource != nil {
		out.Objects = r.item.resource.Objects
	}
	return out
}

// served adds to s what all machines have of target.
func (s *Status) served(target *xds.Resources, machines []*machine) {
	missing := map[model.ObjectRef]bool{} // true for Ingresses that some Envoy lacks a host of
	for t := range target.All(xds.VirtualHost) {
		current := true
		for _, m := range machines {
			have := m.lanes[xds.VirtualHost].held[t.Name]
			current = current && have.version == t.Version
			for _, o := range t.Objects {
				missing[o] = missing[o] || have.resource == nil || !slices.Contains(have.resource.Objects, o)
			}
		}
		if current {
			s.Hosts = append(s.Hosts, xds.HostName(t.Name))
		}
	}
	for o, lacks := range missing {
		if !lacks {
			s.Ingresses = append(s.Ingresses, model.Key{Namespace: o.Namespace, Name: o.Name})
		}
	}
	slices.Sort(s.Hosts)
	slices.SortFunc(s.Ingresses, model.CompareKeys)
}

func compareRefusals(a, b Refusal) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason))
}
