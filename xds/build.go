package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// Build derives the Envoy resources of a Config. What Envoy would refuse is left out, as small as possible, and
// is a Problem. Build is pure: the same arguments give the same bytes.
func Build(config gateway.Config, settings Settings) (Resources, []model.Problem) {
	b := &builder{settings: settings.withDefaults(), observe: config.Observe, listen: config.Listen, compression: config.Compression, grpc: speakHTTP2(config.Backends), origins: origins(config)}
	certificates := b.addSecrets(config.Certificates)
	b.addClients(config)
	b.stampPassthroughs(config.Passthroughs)
	b.addTrusts(config.Trusts)
	endpoints := map[string]bool{}
	for _, s := range config.EndpointSets {
		endpoints[s.Name] = true
		b.addEndpoints(s)
	}
	for _, c := range config.Backends {
		if !endpoints[c.Endpoints] {
			// Envoy would wait for them until its fetch times out.
			b.add(&Resource{Kind: Endpoints, Name: c.Endpoints, Objects: b.origins[c.Name]},
				loadAssignment(gateway.EndpointSet{Name: c.Endpoints}))
			endpoints[c.Endpoints] = true
		}
		cluster := &Resource{Kind: Cluster, Name: c.Name, Needs: []string{c.Endpoints}, Secrets: secretsOf(c.Upstream), Objects: b.origins[c.Name]}
		b.contain(cluster, "requests are answered 503", func() { b.add(cluster, b.cluster(c)) })
	}
	b.addDoorkeeper()
	// No listener is left out: after a panic in one of these Build has no answer.
	b.add(&Resource{Kind: Listener, Name: httpListener, Clusters: b.collectors()}, b.plainListener())
	b.passed = len(config.Passthroughs)
	own, shared := b.divide(certificates)
	b.showOnDemand(certificates, config.Hosts)
	secure := b.tlsListener(own, len(shared) > 0, config.Passthroughs)
	b.addHTTP3(secure, own)
	b.add(&Resource{
		Kind: Listener, Name: httpsListener, Needs: b.listenerSecrets(own), Clusters: append(passedTo(config.Passthroughs), b.collectors()...),
	}, secure)
	b.addStreams(config.Streams)
	b.add(&Resource{Kind: Listener, Name: readyListener, Last: true}, b.readinessListener())
	b.add(&Resource{Kind: RouteTable, Name: routeTable}, routeConfiguration())
	b.addHosts(config.Hosts)
	return b.out, model.SortProblems(b.problems)
}

// builder collects the resources of one Build.
type builder struct {
	settings    Settings
	observe     gateway.Observe
	listen      gateway.Listen
	compression gateway.Compression
	grpc        map[string]bool // Backends that speak HTTP/2
	trusted     bool            // for connections of trusted proxies: withTrusted
	chains      chainTable
	clients     []gateway.ClientTLS
	passed      int                          // server names that are handed on
	origins     map[string][]model.ObjectRef // by Backend or EndpointSet
	out         Resources
	problems    []model.Problem
	packErr     error
}

// message is what every generated Envoy type is.
type message interface {
	proto.Message
	ValidateAll() error
}

// add validates, packs and hashes body and keeps the resource, or makes it a Problem.
func (b *builder) add(resource *Resource, body message) {
	packed, err := pack(body)
	if err = errors.Join(b.packErr, err); err != nil {
		b.packErr = nil
		b.problems = append(b.problems, resource.Problem("InvalidForEnvoy", err.Error())...)
		return
	}
	sum := sha256.Sum256(packed.Value)
	resource.Body, resource.Version = packed, hex.EncodeToString(sum[:12])
	b.out.Put(resource)
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
