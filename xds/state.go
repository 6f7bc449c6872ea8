package xds

import (
	"cmp"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/internal/model"
)

// Settings are what a gateway process decides about its Envoy. The zero value is usable.
type Settings struct {
	// HTTP, HTTPS and Ready are the addresses that Envoy listens on; defaults 0.0.0.0:8080, :8443 and :8081.
	// Ready answers 200 to GET /ready, and is opened only after everything else of the first configuration was
	// acknowledged.
	HTTP, HTTPS, Ready netip.AddrPort
	// HTTPSPort is the port that redirects to https name; 0 and 443 are not named.
	HTTPSPort uint16
	// ConnectTimeout is for backends that set none; default 1 s.
	ConnectTimeout time.Duration
	// StreamIdleTimeout ends a request on which no byte moved for so long; default 5 min.
	StreamIdleTimeout time.Duration
	// HSTS is the header Strict-Transport-Security (RFC 6797) of answers over TLS, for hosts with a certificate of their own;
	// none if empty. To change it drains all of their connections.
	HSTS string
	// TLSProfile is for all hosts. To change it drains all of their connections.
	TLSProfile TLSProfile
	// OwnChains is how many filter chains there may be for server names; hosts beyond that, which need nothing of their own,
	// share one, that asks for their certificates on demand. Negative for no limit; 0 is DefaultOwnChains.
	OwnChains int
	// PortOffset is added to ports below it that lead to Services, so that Envoy needs no right for those below 1024, and none is
	// that of another listener; default 10,000, negative for none.
	PortOffset int
	// AccessLog writes a line for each request to Envoy's standard output.
	AccessLog bool
	// AuthSocket is the path of the doorkeeper's socket, as Envoy sees it; default /run/hythe/auth.sock.
	AuthSocket string
	// TraceLog is the cluster of Envoy's bootstrap that takes the log of requests with a TraceHeader; none if empty.
	TraceLog string
}

// DefaultOwnChains is the number of filter chains up to which one more costs Envoy a fifth of a second at most.
const DefaultOwnChains = 1000

// DefaultPortOffset is that of Settings.PortOffset.
const DefaultPortOffset = 10_000

func (s Settings) withDefaults() Settings {
	s.HTTP = orAddress(s.HTTP, 8080)
	s.HTTPS = orAddress(s.HTTPS, 8443)
	s.Ready = orAddress(s.Ready, 8081)
	s.AuthSocket = cmp.Or(s.AuthSocket, "/run/hythe/auth.sock")
	s.PortOffset = max(0, cmp.Or(s.PortOffset, DefaultPortOffset))
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, time.Second)
	s.OwnChains = cmp.Or(s.OwnChains, DefaultOwnChains)
	s.StreamIdleTimeout = cmp.Or(s.StreamIdleTimeout, 5*time.Minute)
	if s.HTTPSPort == 443 {
		s.HTTPSPort = 0
	}
	return s
}

func orAddress(a netip.AddrPort, port uint16) netip.AddrPort {
	if a.IsValid() {
		return a
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

// A Kind is a type of Envoy resource. The order is that in which a new thing is sent.
type Kind uint8

// The kinds of resources that are served.
const (
	Cluster Kind = iota
	Endpoints
	Secret
	Listener
	RouteTable
	VirtualHost
	kinds
)

// Kinds lists all kinds in order.
func Kinds() []Kind {
	return []Kind{Cluster, Endpoints, Secret, Listener, RouteTable, VirtualHost}
}

// TypeURL is the name that xDS has for the kind.
func (k Kind) TypeURL() string {
	return [kinds]string{
		"type.googleapis.com/envoy.config.cluster.v3.Cluster",
		"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
		"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
		"type.googleapis.com/envoy.config.listener.v3.Listener",
		"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
		"type.googleapis.com/envoy.config.route.v3.VirtualHost",
	}[k]
}

// String is for people and metrics.
func (k Kind) String() string {
	return [kinds]string{"cluster", "endpoints", "secret", "listener", "route table", "virtual host"}[k]
}

// KindOf finds the kind of a type URL.
func KindOf(typeURL string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.TypeURL() == typeURL {
			return k, true
		}
	}
	return 0, false
}

// A Resource is one Envoy resource, ready to send. It is never changed.
type Resource struct {
	Kind Kind
	Name string
	// Version is a hash of the content, so it survives a restart of the gateway.
	Version string
	Body    *anypb.Any
	// Needs names what Envoy must have first: the Clusters of a VirtualHost, the Endpoints of a Cluster, the
	// Secrets of a Listener.
	Needs []string
	// Secrets are what a Cluster waits for besides.
	Secrets []string
	// Clusters are those that a Listener hands connections on to by itself: it is sent when they are there.
	Clusters []string
	// Last holds the resource back until all others have been acknowledged.
	Last bool
	// Objects are the Kubernetes objects that asked for the resource.
	Objects []model.ObjectRef
}

// Resources is a full configuration of one Envoy.
type Resources struct {
	byKind [kinds]model.Objects[*Resource] // by name, without a namespace
	// onDemand has the name of the Secret for each exact server name.
	onDemand map[string]string
}

// Get returns the named resource, or nil.
func (r *Resources) Get(kind Kind, name string) *Resource {
	return r.byKind[kind].Get(resourceKey(name))
}

// Len counts the resources of a kind.
func (r *Resources) Len(kind Kind) int { return r.byKind[kind].Len() }

// Names lists the names of a kind, sorted.
func (r *Resources) Names(kind Kind) []string {
	names := make([]string, 0, r.Len(kind))
	for key := range r.byKind[kind].Keys() {
		names = append(names, key.Name)
	}
	slices.Sort(names)
	return names
}

// All yields the resources of a kind, in no order.
func (r *Resources) All(kind Kind) iter.Seq[*Resource] { return r.byKind[kind].Values() }

// Put adds a resource, or replaces the one of the same kind and name.
func (r *Resources) Put(resource *Resource) {
	r.byKind[resource.Kind] = r.byKind[resource.Kind].With(resourceKey(resource.Name), resource)
}

// Others yields the names of a kind that only one of both has, or that are not the same *Resource in both. It costs little
// where one Builder made both.
func (r *Resources) Others(kind Kind, other *Resources) iter.Seq[string] {
	return func(yield func(string) bool) {
		for key := range r.byKind[kind].Others(other.byKind[kind], func(a, b *Resource) bool { return a == b }) {
			if !yield(key.Name) {
				return
			}
		}
	}
}

// SameSecrets reports whether server names have the key pairs that they have in other. It costs nothing; false says nothing.
func (r *Resources) SameSecrets(other *Resources) bool {
	return r.byKind[Secret].Same(other.byKind[Secret]) &&
		reflect.ValueOf(r.onDemand).UnsafePointer() == reflect.ValueOf(other.onDemand).UnsafePointer()
}

// Problem says of a resource what is wrong with it: one Problem for each object that asked for it.
func (r *Resource) Problem(reason, message string) []model.Problem {
	objects := r.Objects
	if len(objects) == 0 {
		objects = []model.ObjectRef{{Kind: "EnvoyResource", Name: r.Kind.String() + " " + r.Name}}
	}
	problems := make([]model.Problem, 0, len(objects))
	for _, o := range objects {
		problems = append(problems, model.Problemf(o, reason, "%s %s: %s", r.Kind, r.Name, message))
	}
	return problems
}
