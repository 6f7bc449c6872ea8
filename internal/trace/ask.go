package trace

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
)

// somewhere are clients outside of the cluster, for a question that names none (RFC 5737, RFC 3849).
var (
	somewhere4 = netip.MustParseAddr("192.0.2.1")
	somewhere6 = netip.MustParseAddr("2001:db8::1")
)

// resolveWait is how long DNS may take.
const resolveWait = time.Second

// Ask asks the processes what a Question needs, hop after hop: what one says decides whom to ask next. gateway is the
// Service that leads to the gateways. What is not answered is noted in the Evidence.
func Ask(ctx context.Context, c *inspect.Cluster, q Question, gateway model.Key) Evidence {
	ev := Evidence{Now: time.Now(), Gateway: gateway}
	for _, p := range c.Processes {
		ev.Processes = append(ev.Processes, ProcessEvidence{
			Component: p.Component, Node: p.Node, Version: p.Version, Source: p.Source, Snapshot: p.Snapshot,
		})
	}
	for _, err := range c.Silent {
		ev.Silent = append(ev.Silent, err.Error())
	}
	a := asker{ctx: ctx, cluster: c, road: road{q: q, ev: &ev}}
	a.problems()
	a.resolve()
	a.service()
	if !a.found() {
		return ev
	}
	a.vip()
	a.frontends()
	a.requests()
	a.backends()
	a.pods()
	return ev
}

// An asker fills in Evidence.
type asker struct {
	ctx     context.Context
	cluster *inspect.Cluster
	road
}

// problems collects what all processes complain about.
func (a *asker) problems() {
	type answer = []inspect.ProblemAnswer
	for _, got := range askAll[answer](a.ctx, a.cluster.Processes, "problems", nil) {
		for _, p := range got.Got {
			a.ev.Problems = append(a.ev.Problems, ProblemEvidence{
				Process: got.Node, Object: model.ObjectRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name},
				Reason: p.Reason, Message: p.Message,
			})
		}
	}
}

// askAll asks processes at the same time. The answers are in their order; Node is the process's name.
func askAll[T any](ctx context.Context, list []*inspect.Process, name string, query url.Values) []Answer[T] {
	out := make([]Answer[T], len(list))
	var wg sync.WaitGroup
	for i, p := range list {
		wg.Go(func() { out[i] = ask[T](ctx, p, p.Name(), name, query) })
	}
	wg.Wait()
	return out
}

// ask asks one process; a nil one does not answer.
func ask[T any](ctx context.Context, p *inspect.Process, as, name string, query url.Values) Answer[T] {
	out := Answer[T]{Node: as}
	if p == nil {
		out.Error = "it does not answer"
		return out
	}
	if err := p.Get(ctx, name, query, &out.Got); err != nil {
		out.Error = err.Error()
		if errors.Is(err, run.ErrNotFound) {
			out.Error = "it knows no question " + name + ": is it of an older version?"
		}
	}
	return out
}

func (a *asker) resolve() {
	host := a.q.Request.Host
	if a.q.Kind != KindURL || a.q.Addr.IsValid() {
		return
	}
	ctx, cancel := context.WithTimeout(a.ctx, resolveWait)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		a.ev.ResolveError = err.Error()
		return
	}
	for _, addr := range addrs {
		a.ev.Resolved = append(a.ev.Resolved, addr.Unmap())
	}
	slices.SortFunc(a.ev.Resolved, netip.Addr.Compare)
	a.ev.Resolved = slices.Compact(a.ev.Resolved)
}

// service asks the nodes in turn, those that see the cluster as it is first.
func (a *asker) service() {
	query := url.Values{"protocol": {a.q.Protocol}}
	switch {
	case a.q.Addr.IsValid():
		query.Set("addr", a.q.Addr.String())
	case a.q.Kind == KindURL:
		query.Set("name", a.ev.Gateway.String())
	default:
		query.Set("name", a.q.Service.String())
	}
	if a.q.Port != 0 {
		query.Set("port", strconv.Itoa(int(a.q.Port)))
	}
	if strings.Contains(a.q.From, "/") {
		query.Set("from", a.q.From)
	}
	nodes := slices.Clone(a.cluster.Component("node"))
	slices.SortStableFunc(nodes, func(x, y *inspect.Process) int {
		return cmp.Compare(boolInt(x.Source == "cache"), boolInt(y.Source == "cache"))
	})
	a.ev.Service.Error = "no node answers"
	for _, p := range nodes {
		if a.ev.Service = ask[ServiceAnswer](a.ctx, p, p.Node, AskService, query); a.ev.Service.Error == "" {
			return
		}
	}
}

// nodeProcesses are the agents of all nodes: nil for those that do not answer.
func (a *asker) nodeProcesses() (names []string, list []*inspect.Process) {
	for _, n := range a.road.service().Nodes {
		names = append(names, n.Name)
		list = append(list, a.cluster.On("node", n.Name))
	}
	return names, list
}

// vip asks each node about the VIP, and then the LAN.
func (a *asker) vip() {
	to, kind := a.to()
	src, err := a.from()
	if kind != toVIP || err != nil {
		return
	}
	query := url.Values{"addr": {to.String()}}
	names, nodes := a.nodeProcesses()
	a.ev.VIPs = make([]Answer[VIPAnswer], len(names))
	each(nodes, func(i int, p *inspect.Process) {
		a.ev.VIPs[i] = ask[VIPAnswer](a.ctx, p, names[i], AskVIP, query)
	})
	if src.inside || len(a.owners()) == 0 {
		return
	}
	askers := a.askers()
	a.ev.ARP = make([]Answer[ARPAnswer], len(askers))
	each(askers, func(i int, v Answer[VIPAnswer]) {
		a.ev.ARP[i] = ask[ARPAnswer](a.ctx, a.cluster.On("node", v.Node), v.Node, AskARP, query)
	})
}

// each calls do for all of list at the same time.
func each[T any](list []T, do func(int, T)) {
	var wg sync.WaitGroup
	for i, v := range list {
		wg.Go(func() { do(i, v) })
	}
	wg.Wait()
}

func (a *asker) frontends() {
	to, kind := a.to()
	port, ok := a.port()
	entry := a.entry()
	src, err := a.from()
	if !ok || entry == "" || err != nil {
		return
	}
	number := port.Port
	if kind == toNodePort {
		number = port.NodePort
	}
	query := url.Values{"addr": {to.String()}, "port": {strconv.Itoa(int(number))}, "protocol": {port.Protocol}}
	if from := a.packetSource(src, to); from.IsValid() {
		query.Set("from", from.String())
	}
	a.ev.Frontends = []Answer[FrontendAnswer]{ask[FrontendAnswer](a.ctx, a.cluster.On("node", entry), entry, AskFrontend, query)}
}

// packetSource is the source address of the packets; the zero Addr is the node's own.
func (a *asker) packetSource(src source, to netip.Addr) netip.Addr {
	switch {
	case src.addr.IsValid() || src.inside:
		return src.addr
	case to.Is6():
		return somewhere6
	}
	return somewhere4
}

func (a *asker) requests() {
	if a.q.Kind != KindURL {
		return
	}
	nodes := a.gateways()
	slices.Sort(nodes)
	a.ev.Requests = make([]Answer[RequestAnswer], len(nodes))
	query := a.q.Request.Query()
	each(nodes, func(i int, node string) {
		a.ev.Requests[i] = ask[RequestAnswer](a.ctx, a.cluster.On("gateway", node), node, AskRequest, query)
	})
}

// backends asks for the Services behind the Envoys.
func (a *asker) backends() {
	for _, ref := range a.road.backends() {
		query := url.Values{"name": {ref.Namespace + "/" + ref.Name}}
		node := a.cluster.On("node", a.ev.Service.Node)
		a.ev.Backends = append(a.ev.Backends, ask[ServiceAnswer](a.ctx, node, a.ev.Service.Node, AskService, query))
	}
}

// pods asks for the way of each leg, and each pod once.
func (a *asker) pods() {
	var routes, pods []leg
	for _, l := range a.legs() {
		if l.node != l.from && !slices.ContainsFunc(routes, func(o leg) bool { return o.from == l.from && o.to.Addr() == l.to.Addr() }) {
			routes = append(routes, l)
		}
		if !slices.ContainsFunc(pods, func(o leg) bool { return o.to == l.to }) {
			pods = append(pods, l)
		}
	}
	if src, ok := a.sourcePod(); ok {
		query := url.Values{"addr": {src.to.String()}, "protocol": {"none"}}
		got := ask[PodAnswer](a.ctx, a.cluster.On("node", src.node), src.node, AskPod, query)
		a.ev.From = &AddrAnswer[PodAnswer]{src.to, got}
	}
	a.ev.Routes = make([]AddrAnswer[RouteAnswer], len(routes))
	a.ev.Pods = make([]AddrAnswer[PodAnswer], len(pods))
	each(routes, func(i int, l leg) {
		query := url.Values{"addr": {l.to.Addr().String()}, "port": {strconv.Itoa(int(l.to.Port()))}, "protocol": {a.q.Protocol}}
		if l.source.IsValid() {
			query.Set("from", l.source.String())
		}
		a.ev.Routes[i] = AddrAnswer[RouteAnswer]{l.to, ask[RouteAnswer](a.ctx, a.cluster.On("node", l.from), l.from, AskRoute, query)}
	})
	each(pods, func(i int, l leg) {
		query := url.Values{"addr": {l.to.String()}, "protocol": {a.q.Protocol}}
		a.ev.Pods[i] = AddrAnswer[PodAnswer]{l.to, ask[PodAnswer](a.ctx, a.cluster.On("node", l.node), l.node, AskPod, query)}
	})
}
