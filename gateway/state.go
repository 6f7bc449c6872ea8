package gateway

import (
	"net/netip"
	"time"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// Settings are what an administrator decides for all gateways of a cluster. The zero value is usable.
type Settings struct {
	// Classes are further class names that are Hythe's although no IngressClass object says so; they are
	// compared with spec.ingressClassName and with the annotation kubernetes.io/ingress.class.
	Classes []string
	// WithoutClass makes Ingresses that name no class Hythe's, even where no default IngressClass is.
	WithoutClass bool
	// HTTPSPort is the port that the redirect from http to https names; 0 means 443, which is not named.
	HTTPSPort uint16
	// DefaultCertificate, if set, names the Secret that serves hosts without an own certificate. Otherwise
	// Build's caller passes a self-signed one by DefaultChain and DefaultKey.
	DefaultCertificate model.Key
	// DefaultChain and DefaultKey are the PEM pair used when DefaultCertificate is not set or not usable.
	DefaultChain, DefaultKey []byte
	// CatchAllNamespaces are the namespaces whose Ingresses may serve hosts that nobody names: by rules without a
	// host, and by a default backend. "*" means all. The annotation v1alpha1.CatchAllAnnotation of an IngressClass
	// allows further ones to the Ingresses of that class.
	CatchAllNamespaces []string
	// Listen is what flags say of listeners; a GatewayConfig adds to it.
	Listen Listen
	// TCPServices and UDPServices name ConfigMaps with ports that lead to Services, as ingress-nginx has them.
	TCPServices, UDPServices model.Key
	// OwnPorts and LocalAddresses are what no endpoint may lead to: see model.OwnOf.
	OwnPorts       model.OwnPorts
	LocalAddresses []netip.Addr
	// Now is the time at which certificates are checked for being expired, which is a Problem; if it is zero,
	// they are not. An hour's precision will do: Build has no clock, and each new Now is a new Build.
	Now time.Time
}

// A Config is everything that Envoy should serve, in the gateway's own few words; package xds derives the Envoy
// resources from it. Two equal snapshots give deeply equal Configs.
type Config struct {
	// Hosts is sorted by Name. Each name stands in it at most once.
	Hosts []Host
	// Certificates is sorted by Name; the one named DefaultCertificateName is always there.
	Certificates []Certificate
	// ClientTLS is sorted by Certificate, Authorities and Depth, and Authorities by Name: those that ClientTLS names.
	ClientTLS   []ClientTLS
	Authorities []Authorities
	// Trusts is sorted by Name and holds exactly those that a Backend's Upstream names.
	Trusts []Trust
	// Auth has what Routes name by their Auth. It holds secrets, and is for the doorkeeper, not for Envoy.
	Auth auth.Table
	// Passthroughs is sorted by ServerName.
	Passthroughs []Passthrough
	// Backends is sorted by Name and holds exactly those that a Host refers to.
	Backends []Backend
	// Observe is what is told of requests.
	Observe Observe
	// Listen is how clients reach the gateway.
	Listen Listen
	// Compression is of answers.
	Compression Compression
	// Streams is sorted by Protocol and Port.
	Streams []Stream
	// EndpointSets is sorted by Name and holds exactly those that a Backend refers to.
	EndpointSets []EndpointSet
}

// CatchAll is the name of the Host that serves what no other Host does.
const CatchAll = "*"

// DefaultCertificateName is the name of the Certificate for server names without an own one.
const DefaultCertificateName = "default"

// A Host is what is served under one host name.
type Host struct {
	// Name is lower case: "shop.example.com", "*.example.com" for exactly one more label, or CatchAll.
	Name string
	// Certificate is the Name of the Certificate that a TLS client gets who asks for this host.
	Certificate string
	// RedirectHTTPS makes all plain http requests answer 308 to https, but those of a Route with Plain set.
	RedirectHTTPS bool
	// Clients says who must show a certificate, over TLS; nil for nobody. Over plain http nothing else is answered then than
	// a redirect or 403, and challenges of ACME (RFC 8555 section 8.3). Its Subject is for the whole subject (RFC 2253).
	Clients *policy.ClientAuth
	// Routes are in the order in which they are to be tried: Exact first, then by length, the longer paths first.
	Routes []Route
	// Ingresses lists the Ingresses that have a part in this host, sorted; for reports.
	Ingresses []model.Key
}

// A Route sends the requests under one path of a host somewhere.
type Route struct {
	Match PathMatch
	Path  string // starts with a slash; a Prefix has no trailing slash unless it is "/"
	// Pattern is the RE2 expression of a Regex in its plainest form, for the front part of a path; Path is what the
	// Ingress has. Empty for other matches.
	Pattern string
	// Plain exempts the route from RedirectHTTPS (ACME HTTP-01 challenges, RFC 8555 section 8.3, and where the Ingress
	// says so).
	Plain bool
	// Backend is the Name of the Backend; when empty, Status is answered instead.
	Backend string
	// Status is the HTTP status of a direct answer, 0 when Backend is set or the Policy redirects.
	Status uint32
	// Policy is what else happens to the requests; nil if nothing does. Routes share it.
	Policy *policy.Route
	// BasicAuth is who may come in by a password; nil where that is not asked for.
	BasicAuth *BasicAuth
	// Auth is the name in Config.Auth of what is asked besides; empty for nothing.
	Auth string
	// AuthHeaders are those of requests that nobody but Auth may set, and what it takes for itself: lower case, sorted, with commas
	// between them.
	AuthHeaders string
	// Canary takes some of the requests, and Mirror gets copies of them; nil for none.
	Canary *Canary
	Mirror *Mirror
	// ErrorPages answers in the place of Backend; nil for nobody.
	ErrorPages *ErrorPages
	// Origin is the Ingress that asked for the route; empty for the final 404.
	Origin model.Key
}

// PathMatch says how Route.Path is compared.
type PathMatch uint8

const (
	// Exact matches the path itself only.
	Exact PathMatch = iota
	// Prefix matches by path elements: /foo matches /foo, /foo/ and /foo/bar, not /foobar. "/" matches all.
	Prefix
	// Regex matches paths whose front part is of Route.Pattern.
	Regex
)

// A Backend is a Service port with the settings of the connections to it: a cluster in Envoy.
type Backend struct {
	// Name is unique to Service port and settings, for example "shop/web:http", or "shop/web:http;connect=5s".
	Name string
	// Endpoints is the Name of the EndpointSet, which depends on the Service port alone.
	Endpoints string
	// Backend is how it is spoken to. Its String is the end of Name.
	policy.Backend
	// Pods is how its endpoints are treated: the same for all Backends of a Service.
	Pods policy.Pods
}

// An EndpointSet holds the addresses behind a Service port that new requests may be sent to.
type EndpointSet struct {
	Name      string // "shop/web:http"
	Addresses []netip.AddrPort
}

// A Certificate is a key pair that Envoy serves for some server names.
type Certificate struct {
	// Name is DefaultCertificateName or "namespace/name" of the Secret.
	Name string
	// ServerNames are the SNI values (RFC 6066 section 3), exact or with a leading "*.", sorted. The default one has
	// those that another namespace's wildcard would cover otherwise. No two Certificates of a Config share one.
	ServerNames []string
	// Chain and Key are PEM. They were checked to belong together.
	Chain, Key []byte
	// Staple is an OCSP response for the first certificate, DER, that holds; empty if there is none.
	Staple []byte
	// NotAfter is when the first of the certificates ends.
	NotAfter time.Time
	// Since is when the oldest Ingress that has a name of it was made; zero if that is not known, and for the default one.
	Since time.Time
}

// A SkippedIngress is an Ingress that is not Hythe's.
type SkippedIngress struct {
	Ingress model.Key
	// Class is the class that it names; empty if it names none.
	Class string
	// Reason says in a few words whose it is instead.
	Reason string
}
