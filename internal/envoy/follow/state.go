package follow

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

// A Request is what a client asks.
type Request struct {
	// Scheme is "http" or "https".
	Scheme string
	// Method is GET if empty.
	Method string
	// Host is the Host header, or :authority, as the client writes it.
	Host string
	// Path may have a query.
	Path string
	// ServerName is what the client names in TLS; empty for Host, as clients do.
	ServerName string
	// Port is the one that Envoy is asked on; 0 for that of the scheme's listener.
	Port uint16
	// Client is where the request comes from; if it is not valid, it may come in everywhere.
	Client netip.Addr
	// Subject is that of the certificate that the client shows (RFC 2253), signed by whom the gateway asks for; empty for none.
	Subject string
	// Headers are further ones, by lower-case name.
	Headers map[string]string
}

// Want is what the gateway would have Envoy have. The zero value wants nothing: all that Envoy has is surplus then.
type Want struct {
	Config    gateway.Config
	Resources *xds.Resources
	Refused   []server.Refusal
	Problems  []model.Problem
	// Snapshot is what Config was built from; nil if that is not known.
	Snapshot *model.Snapshot
	// Node is where Envoy runs, Now the time for certificates.
	Node string
	Now  time.Time
}

// An Answer is the road of a Request through Envoy.
type Answer struct {
	asked.RequestAnswer
	// Certificate, Host and Cluster name the resources that the request needs; empty if it does not come so far.
	Certificate, Host, Cluster string
	// Location is where a redirect leads.
	Location string
}

// since is when an object was last changed, created if that is all that is known, zero where it says neither.
func (w Want) since(o model.ObjectRef) time.Time {
	if w.Snapshot == nil {
		return time.Time{}
	}
	key := model.Key{Namespace: o.Namespace, Name: o.Name}
	var meta *metav1.ObjectMeta
	switch o.Kind {
	case "Ingress":
		if i := w.Snapshot.Ingresses.Get(key); i != nil {
			meta = &i.ObjectMeta
		}
	case "Service":
		if s := w.Snapshot.Services.Get(key); s != nil {
			meta = &s.ObjectMeta
		}
	case "Secret":
		if s := w.Snapshot.Secrets.Get(key); s != nil {
			meta = &s.ObjectMeta
		}
	}
	if meta == nil {
		return time.Time{}
	}
	at := meta.CreationTimestamp.Time
	for _, f := range meta.ManagedFields {
		if f.Time != nil && f.Time.After(at) && f.Subresource == "" { // status is not what was asked for
			at = f.Time.Time
		}
	}
	return at
}

// newest is the latest since of several objects.
func (w Want) newest(objects []model.ObjectRef) time.Time {
	var out time.Time
	for _, o := range objects {
		if at := w.since(o); at.After(out) {
			out = at
		}
	}
	return out
}

// host finds what the gateway serves under a name.
func (w Want) host(name string) *gateway.Host {
	for i := range w.Config.Hosts {
		if w.Config.Hosts[i].Name == name {
			return &w.Config.Hosts[i]
		}
	}
	return nil
}

// addresses are the endpoints that a cluster should have.
func (w Want) addresses(cluster string) ([]netip.AddrPort, bool) {
	for _, b := range w.Config.Backends {
		if b.Name != cluster {
			continue
		}
		for _, s := range w.Config.EndpointSets {
			if s.Name == b.Endpoints {
				return slices.SortedFunc(slices.Values(s.Addresses), netip.AddrPort.Compare), true
			}
		}
		return nil, true
	}
	return nil, false
}

// problems are the messages about an object, the ones that speak of a word first.
func (w Want) problems(o model.ObjectRef, word string) string {
	var with, without []string
	for _, p := range w.Problems {
		switch {
		case p.Object != o:
		case word != "" && strings.Contains(p.Message, word):
			with = append(with, p.Message)
		default:
			without = append(without, p.Message)
		}
	}
	if len(with) > 0 {
		without = nil
	}
	return strings.Join(append(with, without...), "; ")
}

// service is the Service behind a cluster: "shop/web:http" is of Service shop/web.
func service(cluster string) model.ObjectRef {
	name, _, _ := strings.Cut(cluster, ":")
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		return model.ObjectRef{}
	}
	return model.ObjectRef{Kind: "Service", Namespace: namespace, Name: name}
}

// secretRef is the Secret of a certificate, or nothing for the default one.
func secretRef(certificate string) model.ObjectRef {
	namespace, name, ok := strings.Cut(xds.CertificateName(certificate), "/")
	if !ok {
		return model.ObjectRef{}
	}
	return model.ObjectRef{Kind: "Secret", Namespace: namespace, Name: name}
}

// ingresses are the objects of a host.
func ingresses(h *gateway.Host) []model.ObjectRef {
	if h == nil {
		return nil
	}
	out := make([]model.ObjectRef, 0, len(h.Ingresses))
	for _, i := range h.Ingresses {
		out = append(out, model.Ref("Ingress", i))
	}
	return out
}

func (w Want) where() string { return cmp.Or(w.Node, "?") + "/envoy" }
