package gateway

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"hythe.dev/hythe/internal/model"
)

// wholeAfter is when a Build looks at all again though nothing but endpoints changed: certificates end.
const wholeAfter = 10 * time.Minute

// A built is what the next Build needs of the last one where nothing but endpoints changes, as most changes of a cluster are.
type built struct {
	settings Settings // of the last whole Build
	config   Config
	problems []model.Problem // but those of EndpointSets
	own      model.Own
	// targets are what EndpointSets are made of, by name, ofService their names, and ofSet the Problems of those that have any.
	targets   map[string]target
	ofService map[model.Key][]string
	ofSet     map[string][]model.Problem
	// looked are Services whose endpoints decide more than an EndpointSet.
	looked map[model.Key]bool
}

func newBuilt(settings Settings, x *index, problems []model.Problem, targets map[string]target) *built {
	b := &built{
		settings: settings, problems: problems, own: x.own, targets: targets, looked: x.looked,
		ofService: map[model.Key][]string{}, ofSet: map[string][]model.Problem{},
	}
	for name, t := range targets {
		b.ofService[t.service] = append(b.ofService[t.service], name)
	}
	return b
}

// all are the Problems of all.
func (b *built) all() []model.Problem {
	problems := slices.Clone(b.problems)
	for _, more := range b.ofSet {
		problems = append(problems, more...)
	}
	return bounded(problems)
}

// make makes an EndpointSet anew.
func (b *built) make(name string, s *model.Snapshot) EndpointSet {
	set, problems := containEndpoints(name, b.targets[name], s, b.own)
	if delete(b.ofSet, name); len(problems) > 0 {
		b.ofSet[name] = problems
	}
	return set
}

// endpointsOnly is Build where nothing but endpoints changed, and those in a way that no more than EndpointSets are made of. Else,
// or if that is not known, it returns false.
func (c *Cache) endpointsOnly(s *model.Snapshot, settings Settings) (Config, []model.Problem, bool) {
	if c.built == nil || s == c.last || !c.others(s) {
		return Config{}, nil, false
	}
	b := *c.built
	b.ofSet = maps.Clone(b.ofSet)
	if settings.Now.Sub(b.settings.Now).Abs() >= wholeAfter {
		return Config{}, nil, false
	}
	settings.Now = b.settings.Now
	if !reflect.DeepEqual(settings, b.settings) {
		return Config{}, nil, false
	}
	var names []string
	for key := range c.last.Endpoints.Others(s.Endpoints, func(a, b *model.ServiceEndpoints) bool { return a == b }) {
		if b.looked[key] {
			return Config{}, nil, false
		}
		names = append(names, b.ofService[key]...)
	}
	sets := slices.Clone(b.config.EndpointSets)
	for _, name := range names {
		if i, found := slices.BinarySearchFunc(sets, name, compareSetName); found {
			sets[i] = b.make(name, s)
		}
	}
	b.config.EndpointSets = sets
	c.built, c.last = &b, s
	return b.config, b.all(), true
}

func compareSetName(s EndpointSet, name string) int {
	switch {
	case s.Name < name:
		return -1
	case s.Name > name:
		return 1
	}
	return 0
}
