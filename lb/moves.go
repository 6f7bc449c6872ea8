package lb

import (
	"maps"
	"net/netip"

	"hythe.dev/hythe/internal/model"
)

// Reasons of the news that Moves returns.
const (
	ReasonAddressAnnounced = "AddressAnnounced" // a node announces an address that nobody announced
	ReasonAddressMoved     = "AddressMoved"     // another node announces it now
)

// Moves compares who announces each claimed address, by the Reports of nodes, with before, and returns what is new and
// the owners of now. Where no node, or more than one, says that it is the owner, the last one stands: that is so while an
// address moves. A nil before knows nothing, and nothing is news then.
func Moves(s *model.Snapshot, before map[netip.Addr]string) ([]model.Problem, map[netip.Addr]string) {
	says := map[netip.Addr][]string{}
	for _, r := range s.Reports {
		for _, text := range r.Addresses {
			if a, err := parseAddr(text); err == nil && r.Component == "node" {
				says[a] = append(says[a], r.Node)
			}
		}
	}
	var news []model.Problem
	now := map[netip.Addr]string{}
	for _, c := range s.Claims {
		a, err := parseAddr(c.Spec.Address)
		if err != nil {
			continue
		}
		old := before[a]
		now[a] = old
		if len(says[a]) == 1 {
			now[a] = says[a][0]
		}
		if before == nil || now[a] == old {
			continue
		}
		for _, ref := range c.Spec.Services {
			service := model.Ref("Service", model.Key{Namespace: ref.Namespace, Name: ref.Name})
			if old == "" {
				news = append(news, model.Problemf(service, ReasonAddressAnnounced, "%s is announced by node %s.", a, now[a]))
			} else {
				news = append(news, model.Problemf(service, ReasonAddressMoved, "%s is announced by node %s now, and was by node %s.", a, now[a], old))
			}
		}
	}
	maps.DeleteFunc(now, func(_ netip.Addr, node string) bool { return node == "" })
	return model.SortProblems(news), now
}
