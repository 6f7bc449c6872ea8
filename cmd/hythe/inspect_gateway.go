package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/envoy/follow"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/xds"
)

// inspectors answer what this node's Envoy has, beside what the gateway wants.
func (g *gatewayProcess) inspectors() map[string]run.Inspector {
	return g.process.inspectors("gateway", g.node, map[string]run.Inspector{
		asked.AskRequest: g.inspectRequest,
		"hosts":          g.inspectHosts,
		"routes":         g.inspectRoutes,
		"certificates":   g.inspectCertificates,
		"live":           g.inspectLive,
		"problems":       answerProblems(g.shown),
	})
}

// want is what the gateway would have Envoy have.
func (g *gatewayProcess) want() follow.Want {
	w := follow.Want{Node: g.node, Now: time.Now(), Refused: g.server.Status().Refused, Problems: g.problems()}
	if b := g.latest.Load(); b != nil {
		w.Config, w.Resources, w.Snapshot = b.config, &b.resources, b.snapshot
	}
	return w
}

// listeners are those that take requests of clients.
var listeners = []string{"http", "https"}

// inspectRequest answers ?scheme=&host=&path=&method=&port=&sni= with a trace.RequestAnswer.
func (g *gatewayProcess) inspectRequest(ctx context.Context, query url.Values) (any, error) {
	request, err := parseRequest(query)
	if err != nil {
		return nil, err
	}
	want := g.want()
	reader, err := g.envoyReader()
	if err != nil {
		return unreadable(want, err), nil
	}
	config, err := reader.Read(ctx, dump.What{Listeners: listeners, Hosts: true})
	if err != nil {
		return unreadable(want, err), nil
	}
	if !slices.ContainsFunc(config.Listeners, func(l dump.Listener) bool { return l.Address.Port() == request.Port }) {
		request.Port = 0 // it is that of a Service, which leads to another one of Envoy
	}
	first := follow.Follow(config, want, request)
	rest, err := reader.Read(ctx, dump.What{Certificates: names(first.Certificate)})
	config.Certificates = rest.Certificates
	if err != nil {
		return unreadable(want, err), nil
	}
	if second := follow.Follow(config, want, request); second.Cluster != "" {
		rest, err = reader.Read(ctx, dump.What{Clusters: names(second.Cluster)})
		config.Clusters = rest.Clusters
		if err != nil {
			return unreadable(want, err), nil
		}
	}
	return follow.Follow(config, want, request).RequestAnswer, nil
}

func parseRequest(query url.Values) (follow.Request, error) {
	r := follow.Request{
		Scheme: cmp.Or(query.Get("scheme"), "http"), Host: query.Get("host"), Path: cmp.Or(query.Get("path"), "/"),
		Method: query.Get("method"), ServerName: query.Get("sni"),
	}
	if r.Scheme != "http" && r.Scheme != "https" {
		return r, fmt.Errorf("%w: scheme %q is not http or https", run.ErrBadQuery, r.Scheme)
	}
	if r.Host == "" {
		return r, fmt.Errorf("%w: host is missing", run.ErrBadQuery)
	}
	if port := query.Get("port"); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return r, fmt.Errorf("%w: port %q is not a port", run.ErrBadQuery, port)
		}
		r.Port = uint16(n)
	}
	return r, nil
}

// unreadable is the answer when Envoy cannot be asked.
func unreadable(want follow.Want, err error) asked.RequestAnswer {
	return asked.RequestAnswer{Hops: []asked.Hop{{
		Where: want.Node + "/envoy", Part: "listener", Text: "Envoy cannot be asked: " + err.Error(), State: asked.Unknown,
		Remedy: "see that Envoy runs, and that the gateway's --envoy-admin names its admin socket and it may open it",
	}}}
}

func (g *gatewayProcess) inspectHosts(ctx context.Context, _ url.Values) (any, error) {
	config, err := g.readEnvoy(ctx, dump.What{Listeners: listeners, Hosts: true, Certificates: dump.AllNames})
	if err != nil {
		return nil, err
	}
	return follow.Hosts(config, g.want()), nil
}

// inspectRoutes answers ?host=NAME, or for all hosts.
func (g *gatewayProcess) inspectRoutes(ctx context.Context, query url.Values) (any, error) {
	config, err := g.readEnvoy(ctx, dump.What{
		Listeners: listeners, Hosts: true, Certificates: dump.AllNames, Clusters: dump.AllNames,
	})
	if err != nil {
		return nil, err
	}
	return follow.Routes(config, g.want(), query.Get("host")), nil
}

func (g *gatewayProcess) inspectCertificates(ctx context.Context, _ url.Values) (any, error) {
	config, err := g.readEnvoy(ctx, dump.What{Listeners: listeners, Certificates: dump.AllNames})
	if err != nil {
		return nil, err
	}
	return follow.Certificates(config, g.want()), nil
}

// inspectLive answers ?id=HEX.
func (g *gatewayProcess) inspectLive(_ context.Context, query url.Values) (any, error) {
	id := strings.ToLower(query.Get("id"))
	if !xds.ValidTrace(id) {
		return nil, fmt.Errorf("%w: id is not 8 to 32 hexadecimal digits", run.ErrBadQuery)
	}
	return g.live.Get(id), nil
}

func (g *gatewayProcess) readEnvoy(ctx context.Context, what dump.What) (*dump.Config, error) {
	reader, err := g.envoyReader()
	if err != nil {
		return nil, err
	}
	return reader.Read(ctx, what)
}

// envoyReader finds the admin socket of the node's Envoy: of those that --envoy-admin matches, the newest.
func (g *gatewayProcess) envoyReader() (*dump.Reader, error) {
	if g.envoyAdmin == "" {
		return nil, errors.New("the gateway has no --envoy-admin")
	}
	paths, err := filepath.Glob(g.envoyAdmin)
	if err != nil {
		return nil, fmt.Errorf("find admin socket of Envoy: %w", err)
	}
	newest, at := "", time.Time{}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err == nil && info.Mode().Type() == fs.ModeSocket && info.ModTime().After(at) {
			newest, at = p, info.ModTime()
		}
	}
	if newest == "" {
		return nil, fmt.Errorf("find admin socket of Envoy: there is none at %s", g.envoyAdmin)
	}
	return dump.NewReader(newest), nil
}

// names is a list of the name, if there is one.
func names(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// shown are the problems that get and debug show.
func (g *gatewayProcess) shown() []model.Problem { return g.withConnection(g.problems()) }
