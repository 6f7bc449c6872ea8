package show

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
)

// From is what one process answered.
type From[T any] struct {
	// Process is its name, "node1/gateway".
	Process string
	// Node is where it runs.
	Node   string
	Answer T
}

// An onGateway says what the Envoy of one node has of something.
type onGateway struct {
	Node  string           `json:"node"`
	Envoy inspect.ReadBack `json:"envoy"`
}

// gateways sums up what the Envoys have: "3/3 in use", or the worst of their states.
func gateways(nodes []onGateway) Cell {
	inUse := 0
	var worst inspect.EnvoyState
	for _, n := range nodes {
		if n.Envoy.State == inspect.InUse {
			inUse++
		} else if worst == "" || n.Envoy.State == inspect.Refused {
			worst = n.Envoy.State
		}
	}
	switch worst {
	case "":
		return texts("%d/%d in use", inUse, len(nodes))
	case inspect.Refused:
		return Cell{fmt.Sprintf("%d/%d in use, %s", inUse, len(nodes), worst), Bad}
	default:
		return Cell{fmt.Sprintf("%d/%d in use, %s", inUse, len(nodes), worst), Warn}
	}
}

// details names the Envoys that are not as they should be.
func details(nodes []onGateway) Cell {
	var out []string
	for _, n := range nodes {
		if n.Envoy.State != inspect.InUse {
			out = append(out, strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", n.Node, n.Envoy.State, n.Envoy.Reason), ": "))
		}
	}
	return text(strings.Join(out, "; "))
}

// A Host is a host with all gateways that serve it.
type Host struct {
	inspect.HostAnswer
	Envoy *inspect.ReadBack `json:"envoy,omitempty"` // hides the one of a single gateway
	Nodes []onGateway       `json:"nodes"`
}

// Hosts merges the answers of all gateways.
func Hosts(answers []From[[]inspect.HostAnswer]) []Item {
	merged := map[string]*Host{}
	for _, from := range answers {
		for _, a := range from.Answer {
			h := merged[a.Host]
			if h == nil {
				h = &Host{HostAnswer: a}
				merged[a.Host] = h
			}
			h.Nodes = append(h.Nodes, onGateway{from.Node, a.Envoy})
		}
	}
	return items(sortedBy(merged, compareHosts))
}

// compareHosts puts the catch-all last.
func compareHosts(a, b string) int {
	if (a == "*") != (b == "*") {
		return strings.Compare(b, a) // "*" is before all letters
	}
	return strings.Compare(a, b)
}

func (h *Host) place() (string, string) { return "", h.Host }

func (h *Host) inNamespace(ns string) bool {
	for _, i := range h.Ingresses {
		if i.Namespace == ns {
			return true
		}
	}
	return false
}

func (h *Host) cells(now time.Time) []Cell {
	redirect := "no"
	if h.RedirectHTTPS {
		redirect = "yes"
	}
	return []Cell{
		text(h.Host), text(h.Certificate), until(h.NotAfter, now), text(redirect), text(strconv.Itoa(h.Routes)),
		words(objectNames(h.Ingresses)), gateways(h.Nodes), age(h.Since, now), details(h.Nodes),
	}
}

func objectNames(refs []model.ObjectRef) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = objectName(r)
	}
	return out
}

// objectName is "namespace/name" where the kind is clear.
func objectName(r model.ObjectRef) string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// A Route is a path of a host with all gateways that serve it.
type Route struct {
	inspect.RouteAnswer
	Envoy *inspect.ReadBack `json:"envoy,omitempty"`
	Nodes []routeOnGateway  `json:"nodes"`
}

type routeOnGateway struct {
	onGateway
	Ready  int `json:"ready"`
	Total  int `json:"total"`
	Wanted int `json:"wanted"`
}

// Routes merges the answers of all gateways, host by host. The order in which Envoy tries them stays.
func Routes(answers []From[[]inspect.RouteAnswer]) []Item {
	type key struct{ host, path, pathType string }
	merged := map[key]*Route{}
	var order []*Route
	for _, from := range answers {
		for _, a := range from.Answer {
			k := key{a.Host, a.Path, a.PathType}
			r := merged[k]
			if r == nil {
				r = &Route{RouteAnswer: a}
				merged[k] = r
				order = append(order, r)
			}
			// The fewest endpoints of all gateways are shown: that is where somebody may wait.
			if a.Ready < r.Ready {
				r.Ready, r.Total, r.Wanted = a.Ready, a.Total, a.Wanted
			}
			r.Nodes = append(r.Nodes, routeOnGateway{onGateway{from.Node, a.Envoy}, a.Ready, a.Total, a.Wanted})
		}
	}
	slices.SortStableFunc(order, func(a, b *Route) int { return compareHosts(a.Host, b.Host) })
	return items(order)
}

func (r *Route) place() (string, string) { return r.Ingress.Namespace, r.Host }

func (r *Route) cells(now time.Time) []Cell {
	backend, ready := text(r.Backend), Cell{Text: "-"}
	if r.Backend == "" {
		backend = Cell{strconv.Itoa(int(r.Status)), Plain}
		if r.Status >= 500 {
			backend.Tone = Bad
		}
	} else {
		ready = outOf(r.Ready, max(r.Total, r.Wanted), Warn)
		if r.Ready == 0 {
			ready.Tone = Bad
		}
	}
	nodes := make([]onGateway, len(r.Nodes))
	counts := make([]string, len(r.Nodes))
	for i, n := range r.Nodes {
		nodes[i] = n.onGateway
		counts[i] = fmt.Sprintf("%s:%d/%d", n.Node, n.Ready, n.Total)
	}
	return []Cell{
		text(r.Host), text(r.Path), text(r.PathType), backend, ready, text(r.TLS), text(objectName(r.Ingress)),
		gateways(nodes), age(r.Since, now), text(strings.Join(counts, " ")), details(nodes),
	}
}

// A Certificate is one with all gateways that hold it.
type Certificate struct {
	inspect.CertificateAnswer
	Envoy *inspect.ReadBack `json:"envoy,omitempty"`
	Nodes []onCertificate   `json:"nodes"`
}

type onCertificate struct {
	onGateway
	Fingerprint string `json:"fingerprint,omitempty"`
}

// Certificates merges the answers of all gateways.
func Certificates(answers []From[[]inspect.CertificateAnswer]) []Item {
	merged := map[string]*Certificate{}
	for _, from := range answers {
		for _, a := range from.Answer {
			c := merged[a.Name]
			if c == nil {
				c = &Certificate{CertificateAnswer: a}
				merged[a.Name] = c
			}
			if a.NotAfter.Before(c.NotAfter) && !a.NotAfter.IsZero() {
				c.NotAfter = a.NotAfter // what some client gets
			}
			c.Nodes = append(c.Nodes, onCertificate{onGateway{from.Node, a.Envoy}, a.Fingerprint})
		}
	}
	return items(sortedBy(merged, cmp.Compare[string]))
}

func (c *Certificate) place() (string, string) {
	namespace, name, ok := strings.Cut(c.Name, "/")
	if !ok {
		return "", c.Name
	}
	return namespace, name
}

func (c *Certificate) cells(now time.Time) []Cell {
	nodes := make([]onGateway, len(c.Nodes))
	same := true
	for i, n := range c.Nodes {
		nodes[i] = n.onGateway
		// The self-signed one is each gateway's own.
		same = same && (n.Fingerprint == c.Nodes[0].Fingerprint || c.Secret.Name == "")
	}
	problems := Cell{strings.Join(c.Problems, "; "), Bad}
	if !same {
		problems.Text = strings.Join(append(c.Problems[:len(c.Problems):len(c.Problems)], "gateways hold different ones"), "; ")
	}
	if problems.Text == "" {
		problems = text("")
	}
	fingerprint := c.Fingerprint
	if len(fingerprint) > 16 {
		fingerprint = fingerprint[:16]
	}
	return []Cell{
		text(c.Name), words(c.ServerNames), until(c.NotAfter, now), text(c.Issuer), gateways(nodes), problems, age(c.Since, now),
		text(c.Subject), text(strings.Join(c.DNSNames, ",")), text(fingerprint), details(nodes),
	}
}
