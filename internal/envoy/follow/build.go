package follow

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/xds"
)

// Follow takes a request through what Envoy has. It ends at the first hop that is Broken. What was not read is taken
// for absent: first the listeners and hosts, then the certificate and the cluster that the Answer names.
func Follow(config *dump.Config, want Want, request Request) Answer {
	f := &follower{config: config, want: want, request: request}
	f.answer.Status = http.StatusOK
	for _, step := range []func() bool{f.listener, f.certificate, f.host, f.route, f.cluster, f.endpoints} {
		if !step() {
			break
		}
	}
	return f.answer
}

// follower is the state between the steps of one request. A step returns false if the road ends there.
type follower struct {
	config  *dump.Config
	want    Want
	request Request
	answer  Answer

	chain   chain
	hosts   []*routev3.VirtualHost
	virtual *routev3.VirtualHost
	domain  string // the gateway.Host that is served
	pod     *dump.Cluster
}

// hop adds a hop, with the difference from what the gateway wants.
func (f *follower) hop(h asked.Hop, b inspect.ReadBack) bool {
	h.Where = f.want.where()
	h.State = cmp.Or(h.State, asked.OK)
	if h.State == asked.OK && b.State != "" && b.State != inspect.InUse {
		h.State = asked.Differs
	}
	if b.State != "" && b.State != inspect.InUse {
		h.Want = string(b.State) + ": " + b.Reason
		if h.Remedy == "" {
			h.Remedy = f.remedy(b)
		}
	}
	if h.Since.IsZero() && h.Object != (model.ObjectRef{}) {
		h.Since = f.want.since(h.Object)
	}
	f.answer.Hops = append(f.answer.Hops, h)
	return h.State != asked.Broken
}

// remedy is for what is not as the gateway wants it.
func (f *follower) remedy(b inspect.ReadBack) string {
	switch b.State {
	case inspect.Refused:
		return "change the object so that Envoy takes it; what it had before stays in use"
	case inspect.Surplus:
		return "wait: it is removed a few seconds after its last use"
	default:
		return fmt.Sprintf("wait; if it lasts, see hythe get problems and the log of hythe gateway on %s", f.want.Node)
	}
}

func (f *follower) broken(part, text, remedy string) bool {
	return f.hop(asked.Hop{Part: part, Text: text, State: asked.Broken, Remedy: remedy}, inspect.ReadBack{})
}

func (f *follower) listener() bool {
	l := f.findListener()
	if l == nil {
		f.answer.Status = 0
		port := fmt.Sprintf("for %s", f.request.Scheme)
		if f.request.Port != 0 {
			port = fmt.Sprintf("on port %d", f.request.Port)
		}
		if r := f.want.refusal(xds.Listener, f.request.Scheme, ""); r != nil {
			return f.broken("listener", "Envoy has no listener "+port+", and refused it: "+strings.TrimSpace(r.Reason),
				"end what Envoy names, or let it listen elsewhere (--listen-http, --listen-https)")
		}
		return f.broken("listener", "Envoy has no listener "+port,
			fmt.Sprintf("see hythe get problems and the log of hythe gateway on %s, and whether the Service's targetPort is one of Envoy's", f.want.Node))
	}
	name := cmp.Or(f.request.ServerName, canonicalHost(f.request.Host))
	c := chainFor(l.Body, name, f.request.Client)
	f.chain = readChain(c)
	f.chain.headers = xds.SharedHeaders(c.GetName(), name, canonicalHost(f.request.Host))
	if f.chain.headers != nil && f.want.Resources != nil {
		f.chain.certificate = f.want.Resources.Shown(name)
	}
	text := fmt.Sprintf("listener %s on %s", l.Name, l.Address)
	if f.chain.tls {
		f.answer.Certificate = f.chain.certificate
		text += fmt.Sprintf(", filter chain %s for server name %s", c.GetName(), name)
	}
	back := f.want.compareListener(l)
	if l.Error != nil && back.State == inspect.Outstanding {
		back = inspect.ReadBack{State: inspect.Refused, Reason: l.Error.Reason}
	}
	h := asked.Hop{Part: "listener", Text: text}
	switch https := f.request.Scheme == "https"; {
	case c != nil && f.chain.manager == nil && !f.chain.tls:
		h.State, h.Remedy = asked.Broken, "its TLS connections are passed through (ssl-passthrough): what becomes of the request only the backend knows"
	case c == nil || f.chain.manager == nil:
		h.State, h.Remedy = asked.Broken, "no filter chain takes this server name: look at /debug/xds of the gateway"
	case https && !f.chain.tls:
		h.State, h.Remedy = asked.Broken, "this listener speaks plain http: use its port for http only"
	case !https && f.chain.tls:
		h.State, h.Remedy = asked.Broken, "this listener speaks TLS: use https"
	}
	if h.State == asked.Broken {
		f.answer.Status = 0 // the connection is closed
	}
	return f.hop(h, back)
}

func (f *follower) findListener() *dump.Listener {
	for i := range f.config.Listeners {
		l := &f.config.Listeners[i]
		if l.Body == nil {
			continue
		}
		if f.request.Port != 0 && l.Address.Port() == f.request.Port || f.request.Port == 0 && l.Name == f.request.Scheme {
			return l
		}
	}
	return nil
}

func (f *follower) certificate() bool {
	if !f.chain.tls {
		return true
	}
	name := f.answer.Certificate
	h := asked.Hop{Part: "certificate", Object: secretRef(name)}
	if f.chain.headers != nil {
		h.Text = "certificate " + name + ", which Envoy asks for when the first client comes"
		return f.hop(h, inspect.ReadBack{})
	}
	c := f.config.Certificate(name)
	if c == nil || len(c.Chain) == 0 {
		h.Text, h.State = "Envoy waits for certificate "+name, asked.Broken
		f.answer.Status = 0
		return f.hop(h, f.want.compareVersion(xds.Secret, name, "", f.config.Read))
	}
	h.Text = certificateText(name, c.Chain[0])
	host := cmp.Or(f.request.ServerName, canonicalHost(f.request.Host))
	if wrong := certificateProblems(c.Chain[0], f.want.Now, host); len(wrong) > 0 {
		// A client that checks ends here; one that does not gets its answer.
		h.State = asked.Differs
		h.Want = fmt.Sprintf("a certificate that is valid for %s: this one is %s", host, strings.Join(wrong, ", "))
		h.Remedy = f.certificateRemedy(name, host)
	}
	return f.hop(h, f.want.compareVersion(xds.Secret, name, c.Version, c.Updated))
}

// certificateRemedy names what keeps a host from its certificate.
func (f *follower) certificateRemedy(name, host string) string {
	if object := secretRef(name); object.Name != "" {
		return fmt.Sprintf("put a certificate for %s into %s", host, object)
	}
	for _, o := range ingresses(f.want.host(f.servedBy(host))) {
		if text := f.want.problems(o, "Secret"); text != "" && strings.Contains(text, "Secret") {
			return fmt.Sprintf("%s: %s", o, text)
		}
	}
	return fmt.Sprintf("name a Secret with a certificate for %s in spec.tls of its Ingress", host)
}

// servedBy is the name of the gateway.Host that serves a host name, were Envoy as the gateway wants it.
func (f *follower) servedBy(host string) string {
	if f.want.host(host) != nil {
		return host
	}
	if _, rest, ok := strings.Cut(host, "."); ok && f.want.host("*."+rest) != nil {
		return "*." + rest
	}
	return "*"
}

func (f *follower) host() bool {
	table := f.chain.manager.GetRds().GetRouteConfigName()
	updated := f.config.Read
	if inline := f.chain.manager.GetRouteConfig(); inline != nil {
		f.hosts = inline.GetVirtualHosts()
	}
	for _, t := range f.config.Tables {
		if t.Name == table {
			f.hosts, updated = t.Hosts, t.Updated
		}
	}
	name := canonicalHost(f.request.Host)
	f.virtual = hostFor(f.hosts, name)
	if f.virtual == nil {
		f.answer.Status = http.StatusNotFound
		return f.broken("host", "Envoy has no virtual host for "+name,
			fmt.Sprintf("see hythe get problems and the log of hythe gateway on %s", f.want.Node))
	}
	f.answer.Host = f.virtual.GetName()
	f.domain = xds.HostName(f.answer.Host)
	back := inspect.ReadBack{}
	if table != "" {
		back = f.want.compareHost(f.answer.Host, f.virtual, updated)
	}
	h := asked.Hop{Part: "host", Text: fmt.Sprintf("virtual host %s for %s", strings.Join(f.virtual.GetDomains(), " "), name)}
	objects := ingresses(f.want.host(f.domain))
	if len(objects) == 1 {
		h.Object = objects[0]
	} else if len(objects) > 1 {
		h.Text += fmt.Sprintf(", of %d Ingresses", len(objects))
		h.Since = f.want.newest(objects)
	}
	wanted := f.servedBy(name)
	switch {
	case table == "" || wanted == f.domain:
	case slices.ContainsFunc(f.hosts, func(v *routev3.VirtualHost) bool { return v.GetName() == xds.HostResource(wanted) }):
		// A wildcard of Envoy's covers any number of labels, one of the Ingress API exactly one.
		h.Text += ", which has more labels than it covers and is served as " + wanted
		f.domain = wanted
	case back.State == inspect.InUse:
		// The host that ought to answer is not there yet, and a wider one does.
		back = f.want.compareHost(xds.HostResource(wanted), nil, updated)
	}
	return f.hop(h, back)
}
