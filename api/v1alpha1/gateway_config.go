package v1alpha1

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A GatewayConfig is what an administrator decides for the Ingresses of the IngressClasses that name it in
// spec.parameters, where ingress-nginx has its ConfigMap. It is cluster-scoped: tenants do not write it.
type GatewayConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec GatewayConfigSpec `json:"spec"`
}

// GatewayConfigSpec says what holds where Ingresses say nothing, and what they may refer to.
type GatewayConfigSpec struct {
	// Defaults hold for an Ingress as long as it has no annotation for the same.
	Defaults GatewayDefaults `json:"defaults,omitempty"`
	// Grants let Ingresses refer to what is not of their namespace.
	Grants []Grant `json:"grants,omitempty"`
	// Observe is for the whole gateway: where several classes name GatewayConfigs, that of the default class counts, else
	// the first by name.
	Observe Observe `json:"observe,omitempty"`
	// Listeners are for the whole gateway, too.
	Listeners Listeners `json:"listeners,omitempty"`
	// Pods holds for Services as long as they have no annotation for the same; for the whole gateway, too.
	Pods PodDefaults `json:"pods,omitempty"`
	// Compression of answers, for the whole gateway, too; absent for none.
	Compression *Compression `json:"compression,omitempty"`
}

// GatewayDefaults are written as in annotations of ingress-nginx. What is absent stays the gateway's own default.
type GatewayDefaults struct {
	// MaxBody is the size of the largest body of a request, as "8m"; "0" for no limit (proxy-body-size).
	MaxBody string `json:"maxBody,omitempty"`
	// Idle ends requests on which no byte moved for so many seconds (proxy-read-timeout, proxy-send-timeout).
	Idle int32 `json:"idleSeconds,omitempty"`
	// Connect is how many seconds a connection to a pod may take to open (proxy-connect-timeout).
	Connect int32 `json:"connectSeconds,omitempty"`
	// RedirectHTTPS sends plain http requests to https: for hosts with TLS unless false (ssl-redirect), and for all with
	// ForceRedirectHTTPS (force-ssl-redirect).
	RedirectHTTPS      *bool `json:"redirectHTTPS,omitempty"`
	ForceRedirectHTTPS bool  `json:"forceRedirectHTTPS,omitempty"`
	// Allow and Deny are client addresses, as "10.0.0.0/8" (whitelist-source-range, denylist-source-range).
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
	// Retry says after what a request is tried at another endpoint, in nginx' words (proxy-next-upstream), and Tries how
	// often in all (proxy-next-upstream-tries).
	Retry string `json:"retry,omitempty"`
	Tries *int32 `json:"tries,omitempty"`
	// Balance is how endpoints are chosen (load-balance).
	Balance string `json:"balance,omitempty"`
	// AccessLog is false where no request is to be logged unless its Ingress says so (enable-access-log).
	AccessLog *bool `json:"accessLog,omitempty"`
	// ErrorStatuses are statuses for which an Ingress's default-backend answers (custom-http-errors).
	ErrorStatuses []int32 `json:"errorStatuses,omitempty"`
}

// A Grant lets Ingresses of the From namespaces refer to the To objects. It is the shape of Gateway API's ReferenceGrant,
// but only an administrator writes it.
type Grant struct {
	// From are namespaces; "*" means all.
	From []string `json:"from"`
	// To are what they may refer to.
	To []GrantTo `json:"to"`
}

// A GrantTo is an object, or several.
type GrantTo struct {
	// Kind is Secret, Service, ConfigMap, Host or URL.
	Kind string `json:"kind"`
	// Namespace is the object's, or that of the Ingresses to which a Host belongs. A URL has none.
	Namespace string `json:"namespace,omitempty"`
	// Name is the object's, a host, or a URL's begin of scheme and host with its port if it is not the scheme's own, as
	// "https://login.example.com". Empty means all of the namespace; a URL must be named.
	Name string `json:"name,omitempty"`
}

// Kinds of GrantTo.
const (
	GrantSecret    = "Secret"
	GrantService   = "Service"
	GrantConfigMap = "ConfigMap"
	GrantHost      = "Host"
	GrantURL       = "URL"
)

// Observe says what the gateway tells of requests.
type Observe struct {
	// AccessLog is a line for each request on Envoy's standard output.
	AccessLog AccessLog `json:"accessLog,omitempty"`
	// Tracing sends spans of OpenTelemetry.
	Tracing Tracing `json:"tracing,omitempty"`
}

// An AccessLog is what is written of requests.
type AccessLog struct {
	// Format is "text" or "json"; empty for what the gateway's flag says, which is no log by default.
	Format string `json:"format,omitempty"`
	// SamplePerMille is how many of 1,000 requests are written; absent for all.
	SamplePerMille *int32 `json:"samplePerMille,omitempty"`
}

// Tracing is where spans are sent, and of how many requests.
type Tracing struct {
	// Service takes OTLP over gRPC at Port; empty for no tracing.
	Service ServiceRef `json:"service,omitempty"`
	Port    int32      `json:"port,omitempty"`
	// SamplePerMille is of how many of 1,000 requests spans are sent. Clients cannot ask for them.
	SamplePerMille int32 `json:"samplePerMille,omitempty"`
}

// Listeners say how clients reach the gateway. To change them drains the connections of clients.
type Listeners struct {
	// ProxyProtocolFrom are the addresses, as "10.0.0.0/8", of load balancers that begin connections with the PROXY protocol,
	// version 1 or 2. Who does so from elsewhere is refused.
	ProxyProtocolFrom []string `json:"proxyProtocolFrom,omitempty"`
	// TrustedProxies are the addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed. Those of all others
	// are dropped.
	TrustedProxies []string `json:"trustedProxies,omitempty"`
	// HTTP3 serves hosts that have a certificate of their own by HTTP/3, too.
	HTTP3 *HTTP3 `json:"http3,omitempty"`
	// GRPCWeb makes gRPC of the gRPC-Web of browsers for pods that speak gRPC (backend-protocol); true if absent.
	GRPCWeb *bool `json:"grpcWeb,omitempty"`
	// TCPServices and UDPServices are ports that lead to Services of any namespace, by port, as in the ConfigMaps of
	// ingress-nginx: "5432": "db/postgres:5432". A first :PROXY behind it expects the PROXY protocol of ProxyProtocolFrom, a
	// second one speaks it to the Service.
	TCPServices map[string]string `json:"tcpServices,omitempty"`
	UDPServices map[string]string `json:"udpServices,omitempty"`
}

// PodDefaults are how endpoints of Services are treated; 0 leaves it to Kubernetes who is healthy.
type PodDefaults struct {
	// EjectAfter is the number of answers of 500 and more in a row after which an endpoint gets no request for some seconds
	// (hythe.dev/eject-after-errors).
	EjectAfter int32 `json:"ejectAfterErrors,omitempty"`
	// MaxConnections and MaxRequests are what one gateway has open to a Service (hythe.dev/max-connections, -requests).
	MaxConnections int32 `json:"maxConnections,omitempty"`
	MaxRequests    int32 `json:"maxRequests,omitempty"`
	// SlowStart is for how many seconds a new endpoint gets less than its share (hythe.dev/slow-start-seconds).
	SlowStart int32 `json:"slowStartSeconds,omitempty"`
}

// Compression says which answers are compressed, if the client takes it and they are not yet. Where an answer holds both a
// secret and what the request said, its compressed length tells of the secret.
type Compression struct {
	// Algorithms are br, zstd and gzip, in that order if empty. The first one is taken if the client takes all alike.
	Algorithms []string `json:"algorithms,omitempty"`
	// Types are media types, as "text/html"; text and what is like it if empty.
	Types []string `json:"types,omitempty"`
	// MinBytes is the least Content-Length; 256 if absent.
	MinBytes int32 `json:"minBytes,omitempty"`
}

// HTTP3 is how clients find it.
type HTTP3 struct {
	// Port of UDP that clients see; 443 if absent.
	Port int32 `json:"port,omitempty"`
}

// A GatewayConfigList is a list of GatewayConfigs.
type GatewayConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []GatewayConfig `json:"items"`
}

// DeepCopy returns a copy that shares nothing with c.
func (c *GatewayConfig) DeepCopy() *GatewayConfig {
	out := *c
	c.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	d := &out.Spec.Defaults
	d.RedirectHTTPS, d.AccessLog, d.Tries = copied(d.RedirectHTTPS), copied(d.AccessLog), copied(d.Tries)
	d.Allow, d.Deny, d.ErrorStatuses = slices.Clone(d.Allow), slices.Clone(d.Deny), slices.Clone(d.ErrorStatuses)
	out.Spec.Grants = slices.Clone(out.Spec.Grants)
	for i, g := range out.Spec.Grants {
		out.Spec.Grants[i] = Grant{From: slices.Clone(g.From), To: slices.Clone(g.To)}
	}
	l := &out.Spec.Listeners
	l.ProxyProtocolFrom, l.TrustedProxies = slices.Clone(l.ProxyProtocolFrom), slices.Clone(l.TrustedProxies)
	l.HTTP3, l.GRPCWeb = copied(l.HTTP3), copied(l.GRPCWeb)
	if out.Spec.Compression = copied(out.Spec.Compression); out.Spec.Compression != nil {
		out.Spec.Compression.Algorithms, out.Spec.Compression.Types = slices.Clone(out.Spec.Compression.Algorithms), slices.Clone(out.Spec.Compression.Types)
	}
	l.TCPServices, l.UDPServices = maps.Clone(l.TCPServices), maps.Clone(l.UDPServices)
	out.Spec.Observe.AccessLog.SamplePerMille = copied(out.Spec.Observe.AccessLog.SamplePerMille)
	return &out
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// DeepCopyObject implements runtime.Object.
func (c *GatewayConfig) DeepCopyObject() runtime.Object { return c.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *GatewayConfigList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = copyItems(l.Items, (*GatewayConfig).DeepCopy)
	return &out
}
