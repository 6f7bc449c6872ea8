package gateway

import (
	"fmt"
	"slices"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// settleOwner keeps of the requests with rules for a host, oldest first, those of the namespace that it belongs to: that
// of the oldest one which can work as it is written, else of the oldest. A missing Service is no reason to lose a
// host to somebody else, since it may come back. Those of other namespaces that an administrator lets share the host come
// after them: what both ask for is the owner's. Problems tell the others.
func settleOwner(host string, requests []*request) ([]*request, []model.Problem) {
	first := requests[0]
	if i := slices.IndexFunc(requests, func(r *request) bool { return r.works(host) }); i >= 0 {
		first = requests[i]
	}
	var own, guests []*request
	var problems []model.Problem
	for _, r := range requests {
		if r.key.Namespace == first.key.Namespace {
			own = append(own, r)
			continue
		}
		if host != CatchAll && r.grants.allowed(v1alpha1.GrantHost, r.key.Namespace, first.key.Namespace, host) {
			guests = append(guests, r)
			continue
		}
		what, why := "host "+host, "which comes first"
		if host == CatchAll {
			what = "what nobody names"
		}
		if !r.works(host) {
			why = "which can work as it is written, and this one cannot"
		}
		problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), "HostConflict",
			"%s belongs to namespace %s by Ingress %s, %s; the rules for it here are ignored: choose another host, put them into that namespace, or let an administrator grant the Host in a GatewayConfig",
			what, first.key.Namespace, first.key, why))
	}
	return append(own, guests...), problems
}

// owns says whether a host with rules is of the request's namespace: what holds for all of a host is not for guests to say.
func (r *request) owns(host string, x *index) bool {
	return x.byHost[host][0].key.Namespace == r.key.Namespace
}

// owner returns the namespace that a host name belongs to, by rules for it or for the wildcard above it; empty if
// there are none.
func (x *index) owner(name string) string {
	if rules := x.rulesOf(name); rules != CatchAll {
		return x.byHost[rules][0].key.Namespace
	}
	return ""
}

// pin gives those hosts the default certificate that would get one from a wildcard entry of another namespace,
// since Envoy picks a certificate by server name, over any number of labels, whoever asked for it.
func (c *certificates) pin(hosts []string, owner func(string) string) {
	for _, host := range hosts {
		if host == CatchAll || c.byName[host] != nil {
			continue
		}
		name := c.entryOf(host)
		if name == "" || c.owners[name].namespaces[owner(host)] {
			continue
		}
		c.pinned = append(c.pinned, host)
	}
	for _, host := range c.pinned {
		c.byName[host] = &c.fallback
	}
	slices.Sort(c.pinned)
	c.fallback.ServerNames = c.pinned
}

// elsewhere says that a name's certificate is another namespace's to choose.
func elsewhere(name, owner string, secret model.Key) string {
	return fmt.Sprintf("host %s belongs to namespace %s; Secret %s is not used for it: name it in an Ingress there", name, owner, secret)
}
