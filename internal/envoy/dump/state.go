package dump

import (
	"crypto/x509"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// What says which parts of the configuration are read. Envoy filters them itself. A list is of exact names; AllNames
// asks for all, none for no such part.
type What struct {
	// Listeners are read with their filter chains.
	Listeners []string
	// Hosts reads all virtual hosts.
	Hosts bool
	// Clusters are read with endpoints, health and circuit breakers.
	Clusters []string
	// Certificates are read by the name of their Secret.
	Certificates []string
}

// AllNames asks for everything of a kind.
var AllNames = []string{"*"}

// A Config is what Envoy has. The order is that of the names.
type Config struct {
	// Read is when it was read.
	Read         time.Time
	Server       Server
	Listeners    []Listener
	Tables       []RouteTable
	Clusters     []Cluster
	Certificates []Certificate
}

// A Server is the Envoy process.
type Server struct {
	// Version is "1.40.0".
	Version string
	// State is "LIVE", "DRAINING", "PRE_INITIALIZING" or "INITIALIZING".
	State string
	// Uptime is since the start of the process.
	Uptime time.Duration
}

// A Listener is one that Envoy has, or could not make.
type Listener struct {
	Name    string
	Address netip.AddrPort
	// Version is the one that the gateway gave it, empty for one that was never taken.
	Version string
	Updated time.Time
	// Body is in use; nil if none is.
	Body *listenerv3.Listener
	// Warming says that a newer version waits, for certificates for example.
	Warming bool
	Error   *Failure
}

// A RouteTable is a table of virtual hosts, with the hosts that came one by one.
type RouteTable struct {
	Name    string
	Version string
	Updated time.Time
	Hosts   []*routev3.VirtualHost
	Error   *Failure
}

// A Cluster is a backend with its endpoints.
type Cluster struct {
	Name    string
	Version string
	Updated time.Time
	Body    *clusterv3.Cluster
	// Warming says that the cluster waits for its endpoints and takes no requests yet.
	Warming   bool
	Endpoints []Endpoint
	// Open are the circuit breakers that refuse requests now: "cx_open", "rq_open", "rq_pending_open".
	Open  []string
	Error *Failure
}

// An Endpoint is an address of a cluster.
type Endpoint struct {
	Address netip.AddrPort
	// Healthy says whether Envoy sends requests to it.
	Healthy bool
	// Health is "HEALTHY", or in Envoy's words why it is not, such as "failed_outlier_check".
	Health string
	// Requests, Failed and ConnectFailures count since the endpoint was added.
	Requests, Failed, ConnectFailures uint64
	// Active counts the requests that are being answered.
	Active uint64
}

// A Certificate is a key pair that Envoy serves; its key is not read.
type Certificate struct {
	// Name is that of the Secret resource: "namespace/name", or "default".
	Name    string
	Version string
	Updated time.Time
	// Chain begins with the server's own certificate. It is empty while Envoy waits for it.
	Chain   []*x509.Certificate
	Warming bool
	Error   *Failure
}

// A Failure is what Envoy did not take of a resource.
type Failure struct {
	// Reason is in Envoy's words.
	Reason string
	// Version is the one refused.
	Version string
	At      time.Time
}

// Host finds a virtual host by its resource name, in any table.
func (c *Config) Host(name string) *routev3.VirtualHost {
	for _, t := range c.Tables {
		for _, h := range t.Hosts {
			if h.GetName() == name {
				return h
			}
		}
	}
	return nil
}

// Cluster finds a cluster by name.
func (c *Config) Cluster(name string) *Cluster {
	return find(c.Clusters, func(x *Cluster) bool { return x.Name == name })
}

// Certificate finds a certificate by the name of its Secret resource.
func (c *Config) Certificate(name string) *Certificate {
	return find(c.Certificates, func(x *Certificate) bool { return x.Name == name })
}

// Listener finds a listener by name.
func (c *Config) Listener(name string) *Listener {
	return find(c.Listeners, func(x *Listener) bool { return x.Name == name })
}

func find[T any](all []T, is func(*T) bool) *T {
	for i := range all {
		if is(&all[i]) {
			return &all[i]
		}
	}
	return nil
}
