package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// Build derives the Envoy resources of a Config. What Envoy would refuse is left out, as small as possible, and
// is a Problem. Build is pure: the same arguments give the same bytes.
func Build(config gateway.Config, settings Settings) (Resources, []model.Problem) {
	return new(Builder).Build(config, settings)
}

// builder collects the resources of one Build. What was made of the same before is taken from the last one: memory.go.
type builder struct {
	config      gateway.Config
	settings    Settings
	observe     gateway.Observe
	listen      gateway.Listen
	compression gateway.Compression
	grpc        map[string]bool // Backends that speak HTTP/2
	trusted     bool            // for connections of trusted proxies: withTrusted
	chains      chainTable
	clients     []gateway.ClientTLS
	passed      int // server names that are handed on
	managers    map[managerKey]*listenerv3.Filter
	problems    []model.Problem
	packErr     error

	ordered bool // the long lists are, so that the next Build may remember them
	last    *memory
	now     *memory
	edits   [kinds]*model.ObjectsEdit[*Resource]
	changes changes
}

func (b *builder) build() {
	b.afresh()
	b.compareHosts()
	b.grpc = speakHTTP2(b.config.Backends)
	b.now.origins = b.last.origins
	if b.changes.hosts || b.last.origins == nil || !b.sameUse() {
		b.now.origins, b.changes.origins = origins(b.config), true
	}
	b.addSecrets()
	b.addClients(b.config)
	b.changes.settle(b)
	b.addChains()
	b.addTrusts(b.config.Trusts)
	b.addBackends()
	b.fixed(Cluster, Doorkeeper, b.addDoorkeeper)
	// No listener is left out: after a panic in one of these Build has no answer.
	b.fixed(Listener, httpListener, func() {
		b.add(&Resource{Kind: Listener, Name: httpListener, Clusters: b.collectors()}, b.plainListener())
	})
	b.addTLSListener()
	b.addStreams(b.config.Streams)
	b.fixed(Listener, readyListener, func() {
		b.add(&Resource{Kind: Listener, Name: readyListener, Last: true}, b.readinessListener())
	})
	b.fixed(RouteTable, routeTable, func() { b.add(&Resource{Kind: RouteTable, Name: routeTable}, routeConfiguration()) })
	b.addHosts()
	b.now.out.onDemand = b.showOnDemand()
	for kind, edit := range b.edits {
		b.now.out.byKind[kind] = edit.Objects()
	}
	b.now.grpc, b.now.chains, b.now.clients = b.grpc, b.chains, b.clients
}

// sameUse reports whether Backends have the EndpointSets that they had, and are used by the same Passthroughs. Hosts are compared
// elsewhere.
func (b *builder) sameUse() bool {
	return slices.Equal(b.last.config.Passthroughs, b.config.Passthroughs) &&
		slices.EqualFunc(b.last.config.Backends, b.config.Backends, func(a, b gateway.Backend) bool {
			return a.Name == b.Name && a.Endpoints == b.Endpoints
		})
}

// addChains says which server names have which chain.
func (b *builder) addChains() {
	b.passed = len(b.config.Passthroughs)
	if b.chains = b.last.chains; b.changes.chains {
		b.chains = newChainTable(b.now.certificates)
		b.stampClients(b.config)
		b.stampPassthroughs(b.config.Passthroughs)
	}
}

// addBackends adds the clusters and their endpoints.
func (b *builder) addBackends() {
	objects := func(name string) bool {
		return !b.changes.origins || slices.Equal(b.last.origins[name], b.now.origins[name])
	}
	gone := func(s *gateway.EndpointSet) { b.drop(Endpoints, s.Name) }
	sideBySide(b.last.config.EndpointSets, b.config.EndpointSets, setName, gone, func(was, is *gateway.EndpointSet) {
		if was == nil || !b.keep(Endpoints, is.Name, func() bool { return slices.Equal(was.Addresses, is.Addresses) && objects(is.Name) }) {
			b.remake(Endpoints, is.Name, func() { b.addEndpoints(*is) })
		}
	})
	dropCluster := func(c *gateway.Backend) { b.drop(Cluster, c.Name) }
	sideBySide(b.last.config.Backends, b.config.Backends, backendName, dropCluster, func(was, is *gateway.Backend) {
		if b.get(Endpoints, is.Endpoints) == nil {
			// Envoy would wait for them until its fetch times out.
			b.add(b.few(&Resource{Kind: Endpoints, Name: is.Endpoints, Objects: b.now.origins[is.Name]}),
				loadAssignment(gateway.EndpointSet{Name: is.Endpoints}))
		}
		if was != nil && b.keep(Cluster, is.Name, func() bool { return *was == *is && objects(is.Name) }) {
			return
		}
		b.remake(Cluster, is.Name, func() { b.addCluster(*is) })
	})
}

func (b *builder) addCluster(c gateway.Backend) {
	cluster := &Resource{Kind: Cluster, Name: c.Name, Needs: []string{c.Endpoints}, Secrets: secretsOf(c.Upstream), Objects: b.now.origins[c.Name]}
	b.contain(cluster, "requests are answered 503", func() { b.add(cluster, b.cluster(c)) })
}

// addTLSListener adds the listeners for https and HTTP/3.
func (b *builder) addTLSListener() {
	b.now.reserved, b.now.own, b.now.shared = b.reservedNames(), b.last.own, b.last.shared
	if b.changes.chains {
		own, shared := b.divide(b.now.certificates)
		b.now.own, b.now.shared = own, len(shared) > 0
	}
	if b.last.out.Get(Listener, httpsListener) != nil && b.keep(Listener, httpsListener, b.sameTLSListener) {
		return
	}
	b.drop(Listener, http3Listener)
	b.remake(Listener, httpsListener, func() {
		secure := b.tlsListener(b.now.own, b.now.shared, b.config.Passthroughs)
		b.addHTTP3(secure, b.now.own)
		b.add(&Resource{
			Kind: Listener, Name: httpsListener, Needs: b.listenerSecrets(b.now.own), Clusters: append(passedTo(b.config.Passthroughs), b.collectors()...),
		}, secure)
	})
}

func (b *builder) sameTLSListener() bool {
	named := func(a, b gateway.Certificate) bool {
		return a.Name == b.Name && slices.Equal(a.ServerNames, b.ServerNames)
	}
	return b.now.shared == b.last.shared && slices.Equal(b.now.reserved, b.last.reserved) &&
		slices.Equal(b.config.Passthroughs, b.last.config.Passthroughs) && reflect.DeepEqual(b.clients, b.last.clients) &&
		slices.EqualFunc(b.now.own, b.last.own, named)
}

// message is what every generated Envoy type is.
type message interface {
	proto.Message
	ValidateAll() error
}

// add validates, packs and hashes body and keeps the resource, or makes it a Problem and is false.
func (b *builder) add(resource *Resource, body message) bool {
	packed, err := pack(body)
	if err = errors.Join(b.packErr, err); err != nil {
		b.packErr = nil
		b.problems = append(b.problems, resource.Problem("InvalidForEnvoy", err.Error())...)
		return false
	}
	sum := sha256.Sum256(packed.Value)
	resource.Body, resource.Version = packed, hex.EncodeToString(sum[:12])
	if old := b.last.out.Get(resource.Kind, resource.Name); old != nil && sameResource(old, resource) {
		resource = old
	}
	b.edits[resource.Kind].Set(resourceKey(resource.Name), resource)
	return true
}

// any packs an extension's configuration. An error is kept for the next add.
func (b *builder) any(body message) *anypb.Any {
	packed, err := pack(body)
	if err != nil {
		b.packErr = errors.Join(b.packErr, err)
	}
	return packed
}

// pack validates and marshals body. The bytes are the same for the same content.
func pack(body message) (*anypb.Any, error) {
	if err := body.ValidateAll(); err != nil {
		return nil, fmt.Errorf("validate: %w", err)
	}
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, body, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("marshal: %w", err)
	}
	return packed, nil
}

// origins finds the Ingresses behind each Backend and EndpointSet.
func origins(config gateway.Config) map[string][]model.ObjectRef {
	byBackend := map[string][]model.ObjectRef{}
	for _, h := range config.Hosts {
		_ = contain.Do(func() { // addHost tells of it
			for _, r := range h.Routes {
				for _, backend := range r.Backends() {
					byBackend[backend] = appendNew(byBackend[backend], model.Ref("Ingress", r.Origin))
				}
			}
		})
	}
	for _, p := range config.Passthroughs {
		byBackend[p.Backend] = appendNew(byBackend[p.Backend], model.Ref("Ingress", p.Origin))
	}
	for _, c := range config.Backends {
		if c.Endpoints == c.Name {
			continue
		}
		for _, o := range byBackend[c.Name] {
			byBackend[c.Endpoints] = appendNew(byBackend[c.Endpoints], o)
		}
	}
	return byBackend
}

func appendNew(refs []model.ObjectRef, ref model.ObjectRef) []model.ObjectRef {
	for _, r := range refs {
		if r == ref {
			return refs
		}
	}
	return append(refs, ref)
}
