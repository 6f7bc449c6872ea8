package asked

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"hythe.dev/hythe/internal/model"
)

// A Kind says what a Question is about.
type Kind string

const (
	// KindURL is a request: it goes on behind Envoy.
	KindURL Kind = "url"
	// KindAddress is an address and a port of a Service: a VIP, a ClusterIP, or a node's address with a NodePort.
	KindAddress Kind = "address"
	// KindService is a Service by its name.
	KindService Kind = "service"
)

// A Question is what to trace.
type Question struct {
	// Text is the question as it was asked.
	Text string `json:"text"`
	Kind Kind   `json:"kind"`
	// From is a node's name, NAMESPACE/NAME of a pod, or an address; empty for a client outside of the cluster.
	From string `json:"from,omitempty"`

	// Request is for KindURL.
	Request Request `json:"request,omitzero"`
	// Addr is for KindAddress, and for a KindURL that says which address it goes to.
	Addr netip.Addr `json:"addr,omitzero"`
	// Port is 0 where it is not said: the Service's first one. PortName is instead of it.
	Port     uint16 `json:"port,omitempty"`
	PortName string `json:"portName,omitempty"`
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string `json:"protocol"`
	// Service is for KindService.
	Service model.Key `json:"service,omitzero"`
}

// A Request is what a client sends.
type Request struct {
	Scheme string `json:"scheme"` // "http" or "https"
	Host   string `json:"host"`   // without port
	Port   uint16 `json:"port"`
	Path   string `json:"path"` // escaped, with query
	Method string `json:"method"`
}

// Query is the form of the question to a gateway.
func (r Request) Query() url.Values {
	return url.Values{
		"scheme": {r.Scheme}, "host": {r.Host}, "path": {r.Path}, "method": {r.Method},
		"port": {strconv.Itoa(int(r.Port))},
	}
}

// ErrQuestion says that a question cannot be understood. The text that wraps it says how to ask.
var ErrQuestion = errors.New("cannot be traced")

// BadQuestion is an error that wraps ErrQuestion, with what is wrong in words.
func BadQuestion(text, format string, args ...any) error {
	return fmt.Errorf("%q %w: %s", text, ErrQuestion, fmt.Sprintf(format, args...))
}

// Parse reads a question: a URL, ADDRESS:PORT[/PROTOCOL], or a Service as NAMESPACE/NAME[:PORT] or svc/NAME[:PORT]
// or NAME.NAMESPACE.svc. via, if valid, is the address that a URL's host stands for.
func Parse(text, from string, via netip.Addr) (Question, error) {
	q := Question{Text: text, From: from, Protocol: "tcp", Addr: via}
	var err error
	switch {
	case strings.Contains(text, "://"):
		err = q.parseURL(text)
	case q.parseAddress(text):
	default:
		err = q.parseService(text)
	}
	if err == nil && via.IsValid() && q.Kind != KindURL {
		err = BadQuestion(text, "--via is for URLs: it says which address the host stands for")
	}
	if err == nil {
		err = checkFrom(text, from)
	}
	return q, err
}

func (q *Question) parseURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return BadQuestion(text, "it is no URL: %v", err)
	}
	ports := map[string]uint16{"http": 80, "https": 443}
	port, known := ports[u.Scheme]
	if !known {
		return BadQuestion(text, "write http:// or https://; for other protocols ask for ADDRESS:PORT")
	}
	host := strings.ToLower(u.Hostname())
	if host == "" {
		return BadQuestion(text, "it names no host: write %s://HOST/PATH", u.Scheme)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return BadQuestion(text, "port %q is not between 1 and 65535", p)
		}
		port = uint16(n)
	}
	if service, ok := strings.CutSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc"); ok {
		return BadQuestion(text, "%s is a Service's own name, which no Ingress serves: ask for svc/%s:%d and --from NODE or POD",
			host, strings.Join(reversed(strings.Split(service, ".")), "/"), port)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	q.Kind, q.Port = KindURL, port
	q.Request = Request{Scheme: u.Scheme, Host: host, Port: port, Path: path, Method: "GET"}
	if a, err := netip.ParseAddr(host); err == nil && !q.Addr.IsValid() {
		q.Addr = a.Unmap()
	}
	return nil
}

func reversed(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[len(in)-1-i] = s
	}
	return out
}

// parseAddress reports whether text is ADDRESS, ADDRESS:PORT or either with /PROTOCOL.
func (q *Question) parseAddress(text string) bool {
	plain, protocol, has := strings.Cut(text, "/")
	if !has {
		protocol = "tcp"
	}
	addr, err := netip.ParseAddr(strings.Trim(plain, "[]"))
	var port uint16
	if err != nil {
		ap, err := netip.ParseAddrPort(plain)
		if err != nil || ap.Port() == 0 {
			return false
		}
		addr, port = ap.Addr(), ap.Port()
	}
	switch protocol = strings.ToLower(protocol); protocol {
	case "tcp", "udp", "sctp":
	default:
		return false
	}
	q.Kind, q.Addr, q.Port, q.Protocol = KindAddress, addr.Unmap(), port, protocol
	return true
}

const howService = "write a URL (https://HOST/PATH), ADDRESS:PORT[/udp], or a Service as NAMESPACE/NAME[:PORT] or svc/NAME"

func (q *Question) parseService(text string) error {
	name := text
	for _, prefix := range []string{"svc/", "service/", "services/"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			name = rest
			if !strings.Contains(name, "/") {
				name = "default/" + name
			}
			break
		}
	}
	name, port, hasPort := strings.Cut(name, ":")
	port, protocol, hasProtocol := strings.Cut(port, "/")
	if dns, ok := strings.CutSuffix(strings.TrimSuffix(name, ".cluster.local"), ".svc"); ok {
		service, namespace, _ := strings.Cut(dns, ".")
		name = namespace + "/" + service
	}
	namespace, service, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || service == "" || strings.ContainsAny(service, "/?#. ") || strings.Contains(namespace, ".") {
		return BadQuestion(text, "%s", howService)
	}
	if hasProtocol {
		if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
			return BadQuestion(text, "protocol %q is none of tcp, udp, sctp", protocol)
		}
		q.Protocol = protocol
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		switch {
		case err == nil && n > 0:
			q.Port = uint16(n)
		case err == nil || port == "" || strings.ContainsAny(port, ":. "):
			return BadQuestion(text, "port %q is neither a number between 1 and 65535 nor the name of a port", port)
		default:
			q.PortName = port
		}
	}
	q.Kind, q.Service = KindService, model.Key{Namespace: namespace, Name: service}
	return nil
}

func checkFrom(text, from string) error {
	if strings.Count(from, "/") > 1 || strings.HasPrefix(from, "/") || strings.HasSuffix(from, "/") || strings.ContainsAny(from, " ?#") {
		return BadQuestion(text, "--from %q is neither a node, a pod as NAMESPACE/NAME, nor an address", from)
	}
	return nil
}
