package asked

import (
	"net/netip"
	"time"

	"hythe.dev/hythe/internal/model"
)

// The names of the questions, each under /inspect/NAME of a process.
const (
	// AskRequest asks a gateway about one request, by Request.Query; a RequestAnswer.
	AskRequest = "request"
	// AskVIP asks a node about a VIP: addr=203.0.113.10; a VIPAnswer.
	AskVIP = "vip"
	// AskARP makes a node ask its LAN who has an address: addr=203.0.113.10; an ARPAnswer.
	AskARP = "arp"
	// AskFrontend asks a node's kernel about a frontend: addr, port, protocol; a FrontendAnswer.
	AskFrontend = "frontend"
	// AskRoute asks a node's kernel for the way to an address: addr=10.244.1.5; a RouteAnswer.
	AskRoute = "route"
	// AskPod asks a node about a pod of its own: addr=10.244.1.5:8080, protocol=tcp; a PodAnswer.
	AskPod = "pod"
	// AskFlow asks a node's conntrack for a connection: from, to (ADDRESS:PORT), protocol; a FlowAnswer.
	AskFlow = "flow"
	// AskService asks a node what it knows of a Service: name=shop/web, or addr, port, protocol; a ServiceAnswer.
	AskService = "service"
)

// A RequestAnswer is what a gateway says about one request: the hops in Envoy, and where Envoy sends it.
type RequestAnswer struct {
	// Hops are in the order of the road: listener, certificate, host, route, cluster, endpoints. They end at the first
	// that is Broken. A hop that answers itself, a redirect for example, is OK and the last one.
	Hops []Hop `json:"hops"`
	// Endpoints are those of the cluster, as Envoy has them, sorted by address.
	Endpoints []EnvoyEndpoint `json:"endpoints,omitempty"`
	// Status is what Envoy would answer by itself (301, 404, 421, 503), or 200 where it asks an endpoint.
	Status int `json:"status"`
}

// An EnvoyEndpoint is one endpoint in Envoy's cluster.
type EnvoyEndpoint struct {
	Address netip.AddrPort `json:"address"`
	// Node and Pod are empty where the gateway does not know them.
	Node string `json:"node,omitempty"`
	Pod  string `json:"pod,omitempty"`
	// Healthy says whether Envoy sends new requests there.
	Healthy bool `json:"healthy"`
	// Health is Envoy's own word, such as "HEALTHY" or "failed_outlier_check".
	Health string `json:"health,omitempty"`
	// Chosen marks the endpoint that the last request went to, if that can be known.
	Chosen bool `json:"chosen,omitempty"`
}

// A Decider is the object that decided something, with its age.
type Decider struct {
	Object model.ObjectRef `json:"object,omitzero"`
	Since  time.Time       `json:"since,omitzero"`
}
