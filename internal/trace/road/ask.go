package road

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
	"hythe.dev/hythe/internal/trace/asked"
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
func Ask(ctx context.Context, c *inspect.Cluster, q asked.Question, gateway model.Key) asked.Evidence {
	ev := asked.Evidence{Now: time.Now(), Gateway: gateway}
	for _, p := range c.Processes {
		ev.Processes = append(ev.Processes, asked.ProcessEvidence{
			Component: p.Component, Node: p.Node, Version: p.Version, Source: p.Source, Snapshot: p.Snapshot,
		})
	}
	for _, err := range c.Silent {
		ev.Silent = append(ev.Silent, err.Error())
	}
	a := asker{ctx: ctx, cluster: c, Road: Road{Question: q, Evidence: &ev}}
	a.problems()
	a.resolve()
	a.service()
	if !a.Found() {
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
	Road
}

// problems collects what all processes complain about.
func (a *asker) problems() {
	type answer = []inspect.ProblemAnswer
	for _, got := range askAll[answer](a.ctx, a.cluster.Processes, "problems", nil) {
		for _, p := range got.Got {
			a.Evidence.Problems = append(a.Evidence.Problems, asked.ProblemEvidence{
				Process: got.Node, Object: model.ObjectRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name},
				Reason: p.Reason, Message: p.Message,
			})
		}
	}
}

// askAll asks processes at the same time. The answers are in their order; Node is the process's name.
func askAll[T any](ctx context.Context, list []*inspect.Process, name string, query url.Values) []asked.Answer[T] {
	out := make([]asked.Answer[T], len(list))
	var wg sync.WaitGroup
	for i, p := range list {
		wg.Go(func() { out[i] = ask[T](ctx, p, p.Name(), name, query) })
	}
	wg.Wait()
	return out
}

// ask asks one process; a nil one does not answer.
func ask[T any](ctx context.Context, p *inspect.Process, as, name string, query url.Values) asked.Answer[T] {
	out := asked.Answer[T]{Node: as}
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
	host := a.Question.Request.Host
	if a.Question.Kind != asked.KindURL || a.Question.Addr.IsValid() {
		return
	}
	ctx, cancel := context.WithTimeout(a.ctx, resolveWait)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		a.Evidence.ResolveError = err.Error()
		return
	}
	for _, addr := range addrs {
		a.Evidence.Resolved = append(a.Evidence.Resolved, addr.Unmap())
	}
	slices.SortFunc(a.Evidence.Resolved, netip.Addr.Compare)
	a.Evidence.Resolved = slices.Compact(a.Evidence.Resolved)
}

// service asks the nodes in turn, those that see the cluster as it is first.
func (a *asker) service() {
	query := url.Values{"protocol": {a.Question.Protocol}}
	switch {
	case a.Question.Addr.IsValid():
		query.Set("addr", a.Question.Addr.String())
	case a.Question.Kind == asked.KindURL:
		query.Set("name", a.Evidence.Gateway.String())
	default:
		query.Set("name", a.Question.Service.String())
	}
	if a.Question.Port != 0 {
		query.Set("port", strconv.Itoa(int(a.Question.Port)))
	}
	if strings.Contains(a.Question.From, "/") {
		query.Set("from", a.Question.From)
	}
	nodes := slices.Clone(a.cluster.Component("node"))
	slices.SortStableFunc(nodes, func(x, y *inspect.Process) int {
		return cmp.Compare(boolInt(x.Source == "cache"), boolInt(y.Source == "cache"))
	})
	a.Evidence.Service.Error = "no node answers"
	for _, p := range nodes {
		if a.Evidence.Service = ask[asked.ServiceAnswer](a.ctx, p, p.Node, asked.AskService, query); a.Evidence.Service.Error == "" {
			return
		}
	}
}

// nodeProcesses are the agents of all nodes: nil for those that do not answer.
func (a *asker) nodeProcesses() (names []string, list []*inspect.Process) {
	for _, n := range a.Road.Service().Nodes {
		names = append(names, n.Name)
		list = append(list, a.cluster.On("node", n.Name))
	}
	return names, list
}

// vip asks each node about the VIP, and then the LAN.
func (a *asker) vip() {
	to, kind := a.To()
	src, err := a.From()
	if kind != ToVIP || err != nil {
		return
	}
	query := url.Values{"addr": {to.String()}}
	names, nodes := a.nodeProcesses()
	a.Evidence.VIPs = make([]asked.Answer[asked.VIPAnswer], len(names))
	each(nodes, func(i int, p *inspect.Process) {
		a.Evidence.VIPs[i] = ask[asked.VIPAnswer](a.ctx, p, names[i], asked.AskVIP, query)
	})
	if src.Inside || len(a.Owners()) == 0 {
		return
	}
	askers := a.Askers()
	a.Evidence.ARP = make([]asked.Answer[asked.ARPAnswer], len(askers))
	each(askers, func(i int, v asked.Answer[asked.VIPAnswer]) {
		a.Evidence.ARP[i] = ask[asked.ARPAnswer](a.ctx, a.cluster.On("node", v.Node), v.Node, asked.AskARP, query)
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
	to, kind := a.To()
	port, ok := a.Port()
	entry := a.Entry()
	src, err := a.From()
	if !ok || entry == "" || err != nil {
		return
	}
	number := port.Port
	if kind == ToNodePort {
		number = port.NodePort
	}
	query := url.Values{"addr": {to.String()}, "port": {strconv.Itoa(int(number))}, "protocol": {port.Protocol}}
	if from := a.packetSource(src, to); from.IsValid() {
		query.Set("from", from.String())
	}
	a.Evidence.Frontends = []asked.Answer[asked.FrontendAnswer]{ask[asked.FrontendAnswer](a.ctx, a.cluster.On("node", entry), entry, asked.AskFrontend, query)}
}

// packetSource is the source address of the packets; the zero Addr is the node's own.
func (a *asker) packetSource(src Source, to netip.Addr) netip.Addr {
	switch {
	case src.Addr.IsValid() || src.Inside:
		return src.Addr
	case to.Is6():
		return somewhere6
	}
	return somewhere4
}

func (a *asker) requests() {
	if a.Question.Kind != asked.KindURL {
		return
	}
	nodes := a.Gateways()
	slices.Sort(nodes)
	a.Evidence.Requests = make([]asked.Answer[asked.RequestAnswer], len(nodes))
	query := a.Question.Request.Query()
	each(nodes, func(i int, node string) {
		a.Evidence.Requests[i] = ask[asked.RequestAnswer](a.ctx, a.cluster.On("gateway", node), node, asked.AskRequest, query)
	})
}

// backends asks for the Services behind the Envoys.
func (a *asker) backends() {
	for _, ref := range a.Road.Backends() {
		query := url.Values{"name": {ref.Namespace + "/" + ref.Name}}
		node := a.cluster.On("node", a.Evidence.Service.Node)
		a.Evidence.Backends = append(a.Evidence.Backends, ask[asked.ServiceAnswer](a.ctx, node, a.Evidence.Service.Node, asked.AskService, query))
	}
}

// pods asks for the way of each leg, and each pod once.
func (a *asker) pods() {
	var routes, pods []Leg
	for _, l := range a.Legs() {
		if l.Node != l.From && !slices.ContainsFunc(routes, func(o Leg) bool { return o.From == l.From && o.To.Addr() == l.To.Addr() }) {
			routes = append(routes, l)
		}
		if !slices.ContainsFunc(pods, func(o Leg) bool { return o.To == l.To }) {
			pods = append(pods, l)
		}
	}
	if src, ok := a.SourcePod(); ok {
		query := url.Values{"addr": {src.To.String()}, "protocol": {"none"}}
		got := ask[asked.PodAnswer](a.ctx, a.cluster.On("node", src.Node), src.Node, asked.AskPod, query)
		a.Evidence.From = &asked.AddrAnswer[asked.PodAnswer]{Addr: src.To, Answer: got}
	}
	a.Evidence.Routes = make([]asked.AddrAnswer[asked.RouteAnswer], len(routes))
	a.Evidence.Pods = make([]asked.AddrAnswer[asked.PodAnswer], len(pods))
	each(routes, func(i int, l Leg) {
		query := url.Values{"addr": {l.To.Addr().String()}, "port": {strconv.Itoa(int(l.To.Port()))}, "protocol": {a.Question.Protocol}}
		if l.Source.IsValid() {
			query.Set("from", l.Source.String())
		}
		a.Evidence.Routes[i] = asked.AddrAnswer[asked.RouteAnswer]{Addr: l.To, Answer: ask[asked.RouteAnswer](a.ctx, a.cluster.On("node", l.From), l.From, asked.AskRoute, query)}
	})
	each(pods, func(i int, l Leg) {
		query := url.Values{"addr": {l.To.String()}, "protocol": {a.Question.Protocol}}
		node := cmp.Or(l.Node, l.From) // an endpoint outside of the cluster: who sends there tries it
		a.Evidence.Pods[i] = asked.AddrAnswer[asked.PodAnswer]{Addr: l.To, Answer: ask[asked.PodAnswer](a.ctx, a.cluster.On("node", node), node, asked.AskPod, query)}
	})
}
