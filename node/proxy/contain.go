package proxy

import (
	"maps"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// addServices adds what build says of each Service, in their order. A Service at which it panics is left out whole, and
// only reserve is called, so that packets to its addresses, as far as these can be read, do not leave the node by other
// ways. What build has written of it by then may have taken something from Services after it, so all others are built once
// more, after begin is called again. What the Service had before is not kept: addresses of pods that are gone become other pods' addresses.
func (s *State) addServices(keys []model.Key, begin func(), build func(model.Key, State) []model.Problem, reserve func(model.Key, State)) []model.Problem {
	var faults []model.Problem
	faulty := map[model.Key]bool{}
	for {
		known := len(faulty)
		begin()
		into, problems := s.clone(), []model.Problem(nil)
		for _, key := range keys {
			if faulty[key] {
				_ = contain.Do(func() { reserve(key, into) })
				continue
			}
			fault := model.Contain(model.Ref("Service", key), "It is refused on this node", func() {
				problems = append(problems, build(key, into)...)
			})
			if fault != nil {
				faulty[key], faults = true, append(faults, fault...)
			}
		}
		if len(faulty) == known {
			*s = into
			return append(problems, faults...)
		}
	}
}

// clone copies the maps of s, which hold no Service yet: they are small.
func (s *State) clone() State {
	return State{
		Frontends: maps.Clone(s.Frontends), Owners: maps.Clone(s.Owners), HostPorts: maps.Clone(s.HostPorts), Addresses: maps.Clone(s.Addresses), Pings: maps.Clone(s.Pings),
		PodRanges: maps.Clone(s.PodRanges), Hairpins: maps.Clone(s.Hairpins), Overlays: maps.Clone(s.Overlays),
		Externals: maps.Clone(s.Externals), Others: maps.Clone(s.Others), ServiceRanges: maps.Clone(s.ServiceRanges), NodePortRanges: maps.Clone(s.NodePortRanges),
	}
}
