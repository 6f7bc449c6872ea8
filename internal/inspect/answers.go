package inspect

import (
	"time"

	"hythe.dev/hythe/internal/model"
)

// An EnvoyState says whether Envoy has a resource as the gateway wants it.
type EnvoyState string

const (
	// InUse is a resource that Envoy has in the version that the gateway wants.
	InUse EnvoyState = "in use"
	// Outstanding is one that Envoy has not, or in an earlier version, and did not refuse.
	Outstanding EnvoyState = "not acknowledged yet"
	// Refused is one that Envoy did not take; what it had before stays in use.
	Refused EnvoyState = "refused"
	// Surplus is one that Envoy has and the gateway does not want.
	Surplus EnvoyState = "to be removed"
	// Unread is one of which Envoy could not be asked.
	Unread EnvoyState = "unknown"
)

// ReadBack is what Envoy itself says of a resource, beside what the gateway wants.
type ReadBack struct {
	State EnvoyState `json:"state"`
	// Reason is why, empty for InUse: Envoy's own words of a refusal, or why it could not be asked.
	Reason string `json:"reason,omitempty"`
	// Updated is when Envoy took the version that it has.
	Updated time.Time `json:"updated,omitzero"`
}

// A HostAnswer is one host name that the gateway serves. /inspect/hosts answers []HostAnswer, by name.
type HostAnswer struct {
	// Host is the name, "*.example.com" for one more label, "*" for everything else.
	Host string `json:"host"`
	// Certificate is the name of the filter chain that Envoy takes for the host: "namespace/name" of a Secret, or
	// "default".
	Certificate string `json:"certificate"`
	// NotAfter is the end of the certificate that Envoy holds.
	NotAfter      time.Time `json:"notAfter,omitzero"`
	RedirectHTTPS bool      `json:"redirectHTTPS"`
	// Routes counts those that Envoy has, without redirects and answers of its own.
	Routes int `json:"routes"`
	// Ingresses have a part in the host.
	Ingresses []model.ObjectRef `json:"ingresses,omitempty"`
	// Since is when the newest of them was last changed; zero where the manifests do not say.
	Since time.Time `json:"since,omitzero"`
	Envoy ReadBack  `json:"envoy"`
}

// A RouteAnswer is one path of a host. /inspect/routes answers []RouteAnswer, by host and then in the order in which
// Envoy tries them. The query host=NAME asks for one host.
type RouteAnswer struct {
	Host string `json:"host"`
	Path string `json:"path"`
	// PathType is "Exact" or "Prefix".
	PathType string `json:"pathType"`
	// Backend is "namespace/service:port"; empty where Status is answered.
	Backend string `json:"backend,omitempty"`
	Status  uint32 `json:"status,omitempty"`
	// Ready counts the endpoints to which Envoy would send now, Total those that it has, Wanted those that the
	// gateway would have it have.
	Ready  int `json:"ready"`
	Total  int `json:"total"`
	Wanted int `json:"wanted"`
	// TLS is the name of the certificate that Envoy takes for the host: "namespace/name" of a Secret, or "default".
	TLS      string    `json:"tls,omitempty"`
	NotAfter time.Time `json:"notAfter,omitzero"`
	// Ingress asked for the route; empty for the final 404.
	Ingress model.ObjectRef `json:"ingress,omitzero"`
	// Since is when the Ingress was last changed; zero where the manifest does not say.
	Since time.Time `json:"since,omitzero"`
	// Envoy is of the host, which Envoy takes whole.
	Envoy ReadBack `json:"envoy"`
}

// A CertificateAnswer is one certificate, without its key. /inspect/certificates answers []CertificateAnswer, by name.
type CertificateAnswer struct {
	// Name is "namespace/name" of the Secret, or "default".
	Name string `json:"name"`
	// ServerNames are those for which Envoy takes it.
	ServerNames []string `json:"serverNames,omitempty"`
	// The following is read from the certificate that Envoy holds.
	Subject   string    `json:"subject,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	DNSNames  []string  `json:"dnsNames,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	// Fingerprint is the SHA-256 of the certificate, in hex.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Problems are in words: expired, not valid for a host that it serves.
	Problems []string `json:"problems,omitempty"`
	// Secret is where it comes from, empty for the self-signed one.
	Secret model.ObjectRef `json:"secret,omitzero"`
	// Since is when the Secret was last changed; zero where the manifest does not say.
	Since time.Time `json:"since,omitzero"`
	Envoy ReadBack  `json:"envoy"`
}

// A LiveAnswer is what Envoy noted of one marked request. /inspect/live?id=HEX answers []LiveAnswer, the oldest first: a
// client may send the mark more than once.
type LiveAnswer struct {
	ID string `json:"id"`
	// Received is when the request's first byte came. What follows is counted from then; -1 for what did not happen.
	Received time.Time `json:"received"`
	// UpstreamConnected is when the request's first byte was sent to the endpoint, which needs a connection to it,
	// FirstByte when the answer began, and Done when its last byte was sent to the client.
	UpstreamConnected time.Duration `json:"upstreamConnected"`
	FirstByte         time.Duration `json:"firstByte"`
	Done              time.Duration `json:"done"`

	Status int    `json:"status"`
	Method string `json:"method"`
	Host   string `json:"host"`
	// Path has no query.
	Path string `json:"path"`
	// Client is the address as Envoy saw it, Upstream the endpoint that answered, Local Envoy's own address to it.
	Client   string `json:"client"`
	Upstream string `json:"upstream,omitempty"`
	Local    string `json:"local,omitempty"`
	// Listener is the address that Envoy took the request on, ServerName what the client asked for by TLS.
	Listener   string `json:"listener"`
	ServerName string `json:"serverName,omitempty"`
	TLS        string `json:"tls,omitempty"`
	Cluster    string `json:"cluster,omitempty"`
	// Chain is the filter chain, Route the Ingress that asked for the route ("namespace/name").
	Chain string `json:"chain,omitempty"`
	Route string `json:"route,omitempty"`
	// Details is Envoy's own word for how the request ended, Flags its response flags (empty for none), Failure why no
	// connection to the endpoint came about.
	Details string `json:"details,omitempty"`
	Flags   string `json:"flags,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Attempts counts the endpoints that were tried.
	Attempts int `json:"attempts,omitempty"`
}
