package xds

import (
	"bytes"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// A Builder makes a sequence of Builds cheaper: a resource is made anew only if something changed that it is made of. Results
// are those of the function Build, and what is as it was is the same *Resource. It remembers one Build, and of a Config what
// must not be changed afterwards. The zero value is ready; a Builder is not for concurrent use.
type Builder struct {
	last *memory
}

// A memory is what a Build was made of, and what came of it.
type memory struct {
	settings Settings
	config   gateway.Config
	out      Resources
	// faulty are resources that there was a Problem with: they are made anew by each Build, which tells of it.
	faulty map[resourceID]bool
	// small are the resources that each Build makes anew: there are few.
	small   []resourceID
	grpc    map[string]bool
	origins map[string][]model.ObjectRef
	chains  chainTable
	clients []gateway.ClientTLS
	// certificates are those that Envoy gets, without what is secret, and own those of them with a chain of their own.
	certificates, own []gateway.Certificate
	reserved          []string
	shared            bool
	// rest are the routes of the catch-all, and elsewhere the stamps on which it is asked for what is not its own.
	rest      []*routev3.Route
	elsewhere []netip.Addr
}

type resourceID struct {
	kind Kind
	name string
}

// Build is the function Build with the Builder's memory.
func (m *Builder) Build(config gateway.Config, settings Settings) (Resources, []model.Problem) {
	last := m.last
	m.last = nil // after a panic the next Build begins anew
	b := newBuilder(last, config, settings.withDefaults())
	b.build()
	if b.ordered {
		m.last = b.now
	}
	return b.now.out, model.SortProblems(b.problems)
}

func newBuilder(last *memory, config gateway.Config, settings Settings) *builder {
	b := &builder{
		config: config, settings: settings, observe: config.Observe, listen: config.Listen, compression: config.Compression,
		ordered: ordered(config), last: last, managers: map[managerKey]*listenerv3.Filter{},
	}
	if last == nil || !b.ordered || last.settings != settings || !reflect.DeepEqual(common(last.config), common(config)) {
		b.last = &memory{}
	}
	b.now = &memory{settings: settings, config: config, faulty: map[resourceID]bool{}}
	b.now.config.Auth = gateway.Config{}.Auth
	for kind := range b.edits {
		b.edits[kind] = b.last.out.byKind[kind].Edit()
	}
	return b
}

// common is what all resources may be made of.
func common(c gateway.Config) gateway.Config {
	c.Hosts, c.Certificates, c.ClientTLS, c.Authorities, c.Trusts = nil, nil, nil, nil, nil
	c.Passthroughs, c.Backends, c.Streams, c.EndpointSets = nil, nil, nil, nil
	c.Auth = gateway.Config{}.Auth // not for Envoy
	return c
}

// ordered reports whether the long lists of a Config are in their order, without doubles, so that two of them can be compared.
func ordered(c gateway.Config) bool {
	in := false
	_ = contain.Do(func() {
		in = ascending(c.Hosts, hostName) && ascending(c.Certificates, certificateName) &&
			ascending(c.Backends, backendName) && ascending(c.EndpointSets, setName)
	})
	return in
}

func ascending[T any](list []T, name func(*T) string) bool {
	for i := 1; i < len(list); i++ {
		if name(&list[i-1]) >= name(&list[i]) {
			return false
		}
	}
	return true
}

func hostName(h *gateway.Host) string               { return h.Name }
func certificateName(c *gateway.Certificate) string { return c.Name }
func backendName(b *gateway.Backend) string         { return b.Name }
func setName(s *gateway.EndpointSet) string         { return s.Name }

// sideBySide goes through two lists that are ordered by name: gone gets what is in before alone, and now all of after, with what
// it was before, nil if it is new.
func sideBySide[T any](before, after []T, name func(*T) string, gone func(*T), now func(was, is *T)) {
	i := 0
	for j := range after {
		is := &after[j]
		for i < len(before) && name(&before[i]) < name(is) {
			gone(&before[i])
			i++
		}
		if i < len(before) && name(&before[i]) == name(is) {
			now(&before[i], is)
			i++
		} else {
			now(nil, is)
		}
	}
	for ; i < len(before); i++ {
		gone(&before[i])
	}
}

func resourceKey(name string) model.Key { return model.Key{Name: name} }

func (b *builder) get(kind Kind, name string) *Resource { return b.edits[kind].Get(resourceKey(name)) }

func (b *builder) drop(kind Kind, name string) { b.edits[kind].Delete(resourceKey(name)) }

// keep reports whether a resource stays: nothing was wrong with it, and it is made of the same.
func (b *builder) keep(kind Kind, name string, same func() bool) bool {
	if b.last.faulty[resourceID{kind, name}] {
		return false
	}
	ok := false
	_ = contain.Do(func() { ok = same() }) // who makes it tells of a panic
	return ok
}

// remake makes a resource in the place of the one before, and notes whether there was a Problem.
func (b *builder) remake(kind Kind, name string, build func()) {
	known := len(b.problems)
	b.drop(kind, name)
	build()
	if len(b.problems) > known {
		b.now.faulty[resourceID{kind, name}] = true
	}
}

// fixed makes a resource that depends on nothing that is in lists.
func (b *builder) fixed(kind Kind, name string, build func()) {
	if b.last.out.Get(kind, name) == nil || !b.keep(kind, name, func() bool { return true }) {
		b.remake(kind, name, build)
	}
}

// afresh takes away what each Build makes anew.
func (b *builder) afresh() {
	for _, id := range b.last.small {
		b.drop(id.kind, id.name)
	}
}

// few notes a resource that each Build makes anew.
func (b *builder) few(r *Resource) *Resource {
	b.now.small = append(b.now.small, resourceID{r.Kind, r.Name})
	return r
}

// changes are what the long lists of a Config have new, and what follows for hosts.
type changes struct {
	hosts bool // any
	// origins are the Ingresses behind Backends and EndpointSets.
	origins bool
	// names is of names and certificates of hosts, and certificates of those that Envoy gets and their names.
	names, certificates bool
	// chains is set if hosts may be on other chains: those in affected, or all.
	chains, allChains bool
	affected          map[string]bool
	touched           map[string]bool // server names of certificates that are new, others, or gone
}

// compareHosts says what is new of hosts.
func (b *builder) compareHosts() {
	gone := func(*gateway.Host) { b.changes.hosts, b.changes.names = true, true }
	sideBySide(b.last.config.Hosts, b.config.Hosts, hostName, gone, func(was, is *gateway.Host) {
		switch {
		case was == nil || was.Certificate != is.Certificate:
			b.changes.hosts, b.changes.names = true, true
		case !b.changes.hosts:
			same := false
			_ = contain.Do(func() { same = sameHost(was, is) })
			b.changes.hosts = !same
		}
	})
}

// sameHost compares two Hosts of the same name.
func sameHost(a, b *gateway.Host) bool {
	return a.Name == b.Name && a.Certificate == b.Certificate && a.RedirectHTTPS == b.RedirectHTTPS &&
		(a.Clients == b.Clients || reflect.DeepEqual(a.Clients, b.Clients)) &&
		(same(a.Routes, b.Routes) || reflect.DeepEqual(a.Routes, b.Routes)) &&
		(same(a.Ingresses, b.Ingresses) || slices.Equal(a.Ingresses, b.Ingresses))
}

// same reports whether two slices are one. It does not look at what is in them.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

// samePair reports whether the Secret resources of two Certificates of the same name are the same.
func samePair(a, b *gateway.Certificate) bool {
	equal := func(a, b []byte) bool { return same(a, b) || bytes.Equal(a, b) }
	return equal(a.Chain, b.Chain) && equal(a.Key, b.Key) && equal(a.Staple, b.Staple)
}

// sameNames reports whether they are for the same server names, and as old.
func sameNames(a, b *gateway.Certificate) bool {
	return (same(a.ServerNames, b.ServerNames) || slices.Equal(a.ServerNames, b.ServerNames)) && a.Since.Equal(b.Since)
}

// touch notes that a certificate has other names than before, or is new, or gone.
func (c *changes) touch(certificates ...*gateway.Certificate) {
	c.certificates = true
	if c.touched == nil {
		c.touched = map[string]bool{}
	}
	for _, certificate := range certificates {
		if certificate == nil {
			continue
		}
		_ = contain.Do(func() {
			for _, name := range certificate.ServerNames {
				c.touched[name] = true
			}
		})
	}
}

// settle says which hosts may be on other chains. A wildcard's chain may be that of many.
func (c *changes) settle(b *builder) {
	other := !reflect.DeepEqual(b.last.config.ClientTLS, b.config.ClientTLS) ||
		!reflect.DeepEqual(b.last.clients, b.clients) || !slices.Equal(b.last.config.Passthroughs, b.config.Passthroughs) || c.names && len(b.config.ClientTLS) > 0
	c.chains = c.certificates || other || b.last.chains.byName == nil
	c.allChains = other
	c.affected = map[string]bool{}
	for name := range c.touched {
		if strings.HasPrefix(name, "*") {
			c.allChains = true
		}
		c.affected[name] = true
		if _, parent, found := strings.Cut(name, "."); found {
			c.affected["*."+parent] = true
		}
	}
}

// sameChains reports whether a host is asked for on the same chains as before.
func (b *builder) sameChains(host string) bool {
	if !b.changes.chains || !b.changes.allChains && !b.changes.affected[host] {
		return true
	}
	return b.last.chains.of(host).equal(b.chains.of(host))
}

// sameGRPC reports whether the Backends of a host speak HTTP/2 as before, or do not.
func (b *builder) sameGRPC(h *gateway.Host) bool {
	if maps.Equal(b.last.grpc, b.grpc) {
		return true
	}
	return !slices.ContainsFunc(h.Routes, func(r gateway.Route) bool { return b.last.grpc[r.Backend] != b.grpc[r.Backend] })
}

// public is a Certificate without its key pair, which is no part of its chain.
func public(c gateway.Certificate) gateway.Certificate {
	return gateway.Certificate{Name: c.Name, ServerNames: c.ServerNames, Since: c.Since}
}

// sameResource reports whether a resource is as it was. The version stands for its content.
func sameResource(a, b *Resource) bool {
	return a.Version == b.Version && a.Last == b.Last && slices.Equal(a.Needs, b.Needs) && slices.Equal(a.Secrets, b.Secrets) &&
		slices.Equal(a.Clusters, b.Clusters) && slices.Equal(a.Objects, b.Objects)
}
