package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/lab/topology"
)

// patience is how long a route may take to be served after the lab is up.
const patience = 5 * time.Second

// showFolder asks each route that the gateway says it serves, and compares.
func (d *demo) showFolder(ctx context.Context) {
	if !d.check("an address for the gateway", func() (string, error) { return d.anyVIP() }) {
		return
	}
	snapshot, err := d.snapshot(ctx)
	if err != nil {
		d.result("read manifests", "", 0, err)
		return
	}
	config, problems := gateway.Build(snapshot, gateway.Settings{})
	for _, p := range slices.Concat(snapshot.Problems, problems) {
		d.note("problem: %s", p)
	}
	sets := map[string][]netip.AddrPort{}
	for _, b := range config.Backends {
		for _, s := range config.EndpointSets {
			if s.Name == b.Endpoints {
				sets[b.Name] = s.Addresses
			}
		}
	}
	asked := 0
	for _, h := range config.Hosts {
		for i, r := range h.Routes {
			path, ok := pathFor(h, i)
			if !ok || r.Origin.Name == "" && len(config.Hosts) > 1 && h.Name != gateway.CatchAll {
				continue
			}
			if r.Origin.Name != "" {
				asked++
			}
			d.askRoute(ctx, h, r, path, sets[r.Backend])
		}
	}
	if asked == 0 {
		d.result("routes", "", 0, errors.New("no Ingress of this folder is served: see the problems above, and FILL=1 (--fill)"))
	}
}

// anyVIP takes the first claimed address that has an owner.
func (d *demo) anyVIP() (string, error) {
	for _, v := range d.status.VIPs {
		if len(v.Owners) == 1 {
			var err error
			d.vip, err = netip.ParseAddr(v.Address)
			return fmt.Sprintf("%s of %s, on %s", v.Address, strings.Join(v.Services, ", "), v.Owners[0]), err
		}
	}
	return "", errors.New("no VIP has an owner")
}

// pathFor finds a path that only this route of the host serves.
func pathFor(h gateway.Host, route int) (string, bool) {
	r := h.Routes[route]
	candidates := []string{r.Path}
	if r.Match == gateway.Prefix {
		candidates = append(candidates, strings.TrimSuffix(r.Path, "/")+"/hythe-demo")
	}
	for _, path := range candidates {
		first := slices.IndexFunc(h.Routes, func(r gateway.Route) bool { return serves(r, path) })
		if first == route {
			return path, true
		}
	}
	return "", false
}

func serves(r gateway.Route, path string) bool {
	if r.Match == gateway.Exact || r.Path == path || r.Path == "/" {
		return r.Path == path || r.Match == gateway.Prefix
	}
	return strings.HasPrefix(path, r.Path+"/")
}

// hostFor is a name that the host serves.
func hostFor(name string) string {
	if name == gateway.CatchAll {
		return "unknown.invalid"
	}
	return strings.Replace(name, "*", "any", 1)
}

// askRoute asks over http, and over https where http redirects.
func (d *demo) askRoute(ctx context.Context, h gateway.Host, r gateway.Route, path string, endpoints []netip.AddrPort) {
	host := hostFor(h.Name)
	if h.RedirectHTTPS && !r.Plain {
		url := "http://" + host + path
		d.check(url, func() (string, error) {
			a, err := d.until(ctx, url, func(a *answer) error { return wantStatus(a, http.StatusPermanentRedirect) })
			if err != nil {
				return "", err
			}
			return "308 to " + a.location, nil
		})
	}
	scheme := "http://"
	if h.RedirectHTTPS && !r.Plain {
		scheme = "https://"
	}
	url := scheme + host + path
	d.check(url, func() (string, error) {
		a, err := d.until(ctx, url, func(a *answer) error { return d.wantRoute(a, r, endpoints) })
		if err != nil {
			return "", err
		}
		text := fmt.Sprintf("%d from %s", a.status, a.who())
		if r.Backend == "" && r.Origin.Name != "" {
			text += ", for a problem above"
		}
		if len(endpoints) > 0 && !d.inLab(endpoints) {
			text += ", since its endpoints are not in the lab"
		}
		switch {
		case a.verified:
			text += fmt.Sprintf(", certificate of %v", a.names)
		case scheme == "https://":
			text += fmt.Sprintf(", certificate of %v, which does not verify against the lab's CA", a.names)
		}
		return text, nil
	})
}

// until asks until the answer is as wanted, or patience ends.
func (d *demo) until(ctx context.Context, url string, want func(*answer) error) (*answer, error) {
	for deadline := time.Now().Add(patience); ; {
		a, err := d.ask(ctx, url)
		if err != nil && strings.HasPrefix(url, "https:") {
			// The folder may bring certificates of its own.
			a, err = d.askUnverified(ctx, url)
		}
		if err == nil {
			err = want(a)
		}
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return a, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (d *demo) askUnverified(ctx context.Context, url string) (*answer, error) {
	return get(ctx, d.lab.Namespace(topology.Client), url, netip.AddrPortFrom(d.vip, 443), nil)
}

func wantStatus(a *answer, status int) error {
	if a.status != status {
		return fmt.Errorf("status %d from %s, want %d", a.status, a.who(), status)
	}
	return nil
}

// inLab says whether any of the endpoints is a pod of the lab.
func (d *demo) inLab(endpoints []netip.AddrPort) bool {
	for _, p := range d.status.Pods {
		addr, err := netip.ParseAddr(p.Address)
		if err == nil && slices.ContainsFunc(endpoints, func(e netip.AddrPort) bool { return e.Addr() == addr }) {
			return true
		}
	}
	return false
}

// wantRoute compares an answer with what the gateway's configuration says.
func (d *demo) wantRoute(a *answer, r gateway.Route, endpoints []netip.AddrPort) error {
	if r.Backend == "" {
		return wantStatus(a, int(r.Status))
	}
	if len(endpoints) == 0 {
		return wantStatus(a, http.StatusServiceUnavailable)
	}
	if !d.inLab(endpoints) {
		if a.status != http.StatusServiceUnavailable && a.status != http.StatusGatewayTimeout {
			return fmt.Errorf("status %d from %s, want 503 or 504: its endpoints are not in the lab", a.status, a.who())
		}
		return nil
	}
	if err := wantStatus(a, http.StatusOK); err != nil {
		return err
	}
	local, err := netip.ParseAddrPort(a.echo.Local)
	if err != nil || !slices.Contains(endpoints, local) {
		return fmt.Errorf("answered by %s at %s, want one of %s at %v", a.who(), a.echo.Local, r.Backend, endpoints)
	}
	return nil
}
