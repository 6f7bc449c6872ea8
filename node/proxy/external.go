package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// external returns spec.externalIPs of each Service, as far as they may be served. Who may write a Service chooses them, and
// could take any address of anybody (CVE-2020-8554): so it is an administrator who turns them on, and what is known to be
// somebody else's is never served. Where they are off, that is one Problem of this node: the Services work without them.
func external(s *model.Snapshot, self string, settings Settings, vips, lent map[model.Key][]netip.Addr) (map[model.Key][]netip.Addr, []model.Problem) {
	asked := map[model.Key][]netip.Addr{}
	var problems []model.Problem
	for key, svc := range s.Services.All() {
		_ = contain.Do(func() { // addServices tells of it
			if len(svc.Spec.ExternalIPs) == 0 || !proxied(svc) {
				return
			}
			addrs, bad := externalAddrs(svc)
			asked[key] = slices.DeleteFunc(addrs, func(a netip.Addr) bool { // it has them in any case
				return slices.Contains(vips[key], a) || slices.Contains(lent[key], a)
			})
			if len(bad) > 0 && settings.ExternalIPs {
				problems = append(problems, model.Problemf(model.Ref("Service", key), "InvalidExternalIP",
					"spec.externalIPs has %q, which is no IP address. Correct it, or take it out.", bad[0]))
			}
		})
	}
	if !settings.ExternalIPs {
		return nil, externalOff(self, asked)
	}
	if len(asked) == 0 {
		return nil, nil
	}
	taken := takenFromExternal(s, settings, asked, vips, lent)
	for key, addrs := range asked {
		asked[key] = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
			if taken[a] != "" {
				problems = append(problems, model.Problemf(model.Ref("Service", key), model.ReasonForeignAddress,
					"%s in spec.externalIPs is not served: %s. Take it out, or choose an address that is nobody else's.", a, taken[a]))
			}
			return taken[a] != ""
		})
	}
	return asked, problems
}

// externalOff says once that there are Services whose externalIPs are not served.
func externalOff(self string, asked map[model.Key][]netip.Addr) []model.Problem {
	var with []model.Key
	for _, key := range model.SortedKeys(asked) {
		if len(asked[key]) > 0 {
			with = append(with, key)
		}
	}
	if len(with) == 0 {
		return nil
	}
	return []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: self}, "ExternalIPsNotServed",
		"spec.externalIPs of Services are not served (%d Services; the first is %s with %s), since everybody who may write a Service could take any address by them. "+
			"Use type LoadBalancer and an AddressPool or, where all who write Services are trusted, hythe node --external-ips.",
		len(with), with[0], asked[with[0]][0])}
}

// takenFromExternal says whose addresses are that no Service may have as an external one.
func takenFromExternal(s *model.Snapshot, settings Settings, asked, vips, lent map[model.Key][]netip.Addr) map[netip.Addr]string {
	var all []netip.Addr
	for _, addrs := range asked {
		all = append(all, addrs...)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	taken := model.ForeignAddresses(s, all)
	ranges, _ := serviceRanges(s, nil)
	for _, a := range all {
		if i := slices.IndexFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 && taken[a] == "" {
			taken[a] = fmt.Sprintf("it is in the ServiceCIDR %s, from which any Service may get it", ranges[i])
		}
		if slices.Contains(settings.LocalAddresses, a) && taken[a] == "" {
			taken[a] = "it is an address of this node"
		}
	}
	for _, of := range []map[model.Key][]netip.Addr{vips, lent} {
		for _, key := range model.SortedKeys(of) {
			for _, a := range of[key] {
				taken[a] = fmt.Sprintf("it is the address of LoadBalancer Service %s", key)
			}
		}
	}
	return taken
}

// externalAddrs are the addresses of spec.externalIPs, sorted, and what is none.
func externalAddrs(svc *corev1.Service) (addrs []netip.Addr, bad []string) {
	for _, text := range svc.Spec.ExternalIPs {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			bad = append(bad, text)
			continue
		}
		addrs = append(addrs, addr.Unmap())
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), bad
}
