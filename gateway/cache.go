package gateway

import (
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
)

// A Cache makes a sequence of Builds cheaper: it remembers the key pairs of Secrets, whose parsing is most of the
// work, and of what the last Build was made. Results are those of the function Build. The zero value is ready; a
// Cache is not for concurrent use.
type Cache struct {
	// secrets holds those that the last Build asked for. A pointer is enough of a key: what a Snapshot points to
	// never changes.
	secrets map[*corev1.Secret]secretResult
	// last is the Snapshot of the last Build, and read the Secrets that it looked for, nil where there was none.
	last *model.Snapshot
	read map[model.Key]*corev1.Secret
	// configMaps are those that it looked for.
	configMaps map[model.Key]*corev1.ConfigMap
	// built is for endpointsOnly; nil after a Build that did not come to its end.
	built *built
}

// Unaffected reports whether Build would return for s what it returned last, with the same Settings, since nothing
// changed that it looked at. Others write Secrets, claims and reports all the time. It compares pointers, so it may
// say false of two that are equal.
func (c *Cache) Unaffected(s *model.Snapshot) bool {
	return c.last != nil && c.last.Endpoints.Same(s.Endpoints) && c.others(s)
}

// others reports whether what Build looks at beside endpoints is the same in s as it was.
func (c *Cache) others(s *model.Snapshot) bool {
	if c.last == nil || !c.last.Ingresses.Same(s.Ingresses) || !sameMap(c.last.IngressClasses, s.IngressClasses) ||
		!c.last.Services.Same(s.Services) ||
		!sameMap(c.last.Nodes, s.Nodes) || !sameMap(c.last.Claims, s.Claims) ||
		!sameMap(c.last.GatewayConfigs, s.GatewayConfigs) {
		return false
	}
	for key, secret := range c.read {
		if s.Secrets.Get(key) != secret {
			return false
		}
	}
	for key, configMap := range c.configMaps {
		if s.ConfigMaps.Get(key) != configMap {
			return false
		}
	}
	return true
}

func sameMap[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// reader returns a secretReader that parses only Secrets that are not in the Cache, and a function that keeps
// those in the Cache that were read since.
func (c *Cache) reader(s *model.Snapshot) (read secretReader, keep func()) {
	used := map[*corev1.Secret]secretResult{}
	asked := map[model.Key]*corev1.Secret{}
	read = func(key model.Key) (*keyPair, error) {
		secret := s.Secrets.Get(key)
		asked[key] = secret
		if secret == nil {
			return nil, nil
		}
		r, ok := used[secret]
		if !ok {
			r, ok = c.secrets[secret]
		}
		if !ok {
			r.pair, r.err = readSecret(secret)
		}
		used[secret] = r
		return r.pair, r.err
	}
	return read, func() { c.secrets, c.last, c.read = used, s, asked }
}

// Build is the function Build with the Cache's memory.
func (c *Cache) Build(s *model.Snapshot, settings Settings) (Config, []model.Problem) {
	if config, problems, ok := c.endpointsOnly(s, settings); ok {
		return config, problems
	}
	c.built = nil
	read, keep := c.reader(s)
	x, problems := newIndex(s, settings, read)
	config := Config{Certificates: x.certificates.list(), Passthroughs: x.passthroughs, ClientTLS: x.clientTLS}
	config.Authorities = x.usedAuthorities(x.clientTLS)
	used, sets := map[string]target{}, map[string]target{}
	for _, p := range slices.Concat(x.passed, x.streamed) {
		used[p.name()], sets[p.endpoints()] = p, p
	}
	config.Observe, config.Listen, config.Streams = x.observe, x.listen, x.streams
	config.Compression = x.compression
	if c := x.collector; c != nil {
		used[c.name()], sets[c.endpoints()] = *c, *c
	}
	names, more := x.hosts()
	problems = append(problems, more...)
	for _, name := range names {
		host, ports, more := x.containHost(name)
		config.Hosts = append(config.Hosts, host)
		problems = append(problems, more...)
		for _, p := range ports {
			used[p.name()], sets[p.endpoints()] = p, p
		}
	}
	config.Backends, more = x.backends(used, slices.Sorted(maps.Keys(used)))
	problems = append(problems, more...)
	config.Trusts = x.usedTrusts(config.Backends)
	config.Auth, more = x.authTable()
	problems = append(problems, more...)
	b := newBuilt(settings, x, problems, sets)
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		config.EndpointSets = append(config.EndpointSets, b.make(name, s))
	}
	b.config = config
	c.configMaps = x.configMaps
	keep() // not after a panic: the Snapshot was not built then
	c.built = b
	return config, b.all()
}
