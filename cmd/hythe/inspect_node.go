package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/internal/trace/answer"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/overlay"
	"hythe.dev/hythe/node/proxy"
)

// arpWait is how long a node listens for answers to its question who has an address.
const arpWait = 400 * time.Millisecond

// connectWait is how long a pod may take to accept a connection.
const connectWait = time.Second

// traceInspectors are the node's answers for hythe trace.
func (n *node) traceInspectors() map[string]run.Inspector {
	return map[string]run.Inspector{
		asked.AskService:  n.inspectService,
		asked.AskVIP:      n.inspectVIP,
		asked.AskARP:      n.inspectARP,
		asked.AskFrontend: n.inspectFrontend,
		asked.AskRoute:    n.inspectRoute,
		asked.AskPod:      n.inspectPod,
		asked.AskFlow:     n.inspectFlow,
	}
}

func queryAddr(q url.Values, name string) (netip.Addr, error) {
	a, err := netip.ParseAddr(q.Get(name))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %s=%q is no IP address", run.ErrBadQuery, name, q.Get(name))
	}
	return a.Unmap(), nil
}

func queryPort(q url.Values, name string) (uint16, error) {
	port, err := strconv.ParseUint(cmp.Or(q.Get(name), "0"), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%w: %s=%q is no port", run.ErrBadQuery, name, q.Get(name))
	}
	return uint16(port), nil
}

func queryAddrPort(q url.Values, name string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(q.Get(name))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %s=%q is no ADDRESS:PORT", run.ErrBadQuery, name, q.Get(name))
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

func queryProtocol(q url.Values) (proxy.Protocol, error) {
	for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP} {
		if cmp.Or(q.Get("protocol"), "tcp") == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%w: protocol=%q is none of tcp, udp, sctp", run.ErrBadQuery, q.Get("protocol"))
}

func (n *node) snapshot() (*model.Snapshot, error) {
	s := n.last.Load()
	if s == nil {
		return nil, errors.New("this node has not seen the cluster yet")
	}
	return s, nil
}

func (n *node) inspectService(_ context.Context, q url.Values) (any, error) {
	s, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	port, err := queryPort(q, "port")
	if err != nil {
		return nil, err
	}
	find := answer.ServiceQuery{Port: port, Protocol: corev1.ProtocolTCP, From: q.Get("from")}
	if p := q.Get("protocol"); p != "" {
		find.Protocol = corev1.Protocol(upper(p))
	}
	if name := q.Get("name"); name != "" {
		if find.Service, err = parseKey(name); err != nil {
			return nil, fmt.Errorf("%w: name=%w", run.ErrBadQuery, err)
		}
	} else if find.Addr, err = queryAddr(q, "addr"); err != nil {
		return nil, err
	}
	return answer.FindService(s, find), nil
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

func (n *node) inspectVIP(_ context.Context, q url.Values) (any, error) {
	addr, err := queryAddr(q, "addr")
	if err != nil {
		return nil, err
	}
	if n.speaker == nil {
		return asked.VIPAnswer{Without: true, Healthy: true}, nil
	}
	return answer.FromSpeaker(n.speaker.Inspect(addr)), nil
}

func (n *node) inspectARP(ctx context.Context, q url.Values) (any, error) {
	addr, err := queryAddr(q, "addr")
	if err != nil {
		return nil, err
	}
	s, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	if !isVIP(s, addr) {
		return nil, fmt.Errorf("%w: addr=%s is not claimed and in no AddressPool: a question on the LAN would disturb its owner", run.ErrBadQuery, addr)
	}
	if n.speaker == nil {
		return nil, errors.New("this node has no interface for VIPs: it runs without --heartbeat-key, or --without-lb")
	}
	view := n.speaker.Inspect(addr)
	replies, err := arp.Who(ctx, view.Link.Name, addr, arpWait)
	if err != nil {
		return nil, err
	}
	out := asked.ARPAnswer{Interface: view.Link.Name, Waited: arpWait}
	for _, r := range replies {
		reply := asked.ARPReply{MAC: r.MAC, After: r.After}
		for _, peer := range view.Peers {
			if slices.Contains(peer.MACs, r.MAC) {
				reply.Node = peer.Node
			}
		}
		out.Replies = append(out.Replies, reply)
	}
	return out, nil
}

// isVIP says whether an address is a VIP, or may become one.
func isVIP(s *model.Snapshot, addr netip.Addr) bool {
	for _, claim := range s.Claims {
		if a, err := netip.ParseAddr(claim.Spec.Address); err == nil && a.Unmap() == addr {
			return true
		}
	}
	for _, pool := range s.Pools {
		for _, text := range pool.Spec.Addresses {
			if r, err := lb.ParseRange(text); err == nil && r.First.Compare(addr) <= 0 && addr.Compare(r.Last) <= 0 {
				return true
			}
		}
	}
	return false
}

// isPod says whether an address is one to which a node's agent may connect: that of a pod of the node, or an endpoint.
func isPod(s *model.Snapshot, node string, to netip.AddrPort) bool {
	if n := s.Nodes[node]; n != nil && slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(to.Addr()) }) {
		return true
	}
	for _, endpoints := range s.Endpoints.All() {
		for _, port := range endpoints.Ports {
			if slices.ContainsFunc(port.Endpoints, func(e model.Endpoint) bool { return e.AddrPort == to }) {
				return true
			}
		}
	}
	return false
}

func (n *node) inspectFrontend(_ context.Context, q url.Values) (any, error) {
	to, err := queryAddr(q, "addr")
	if err != nil {
		return nil, err
	}
	port, err := queryPort(q, "port")
	if err != nil {
		return nil, err
	}
	protocol, err := queryProtocol(q)
	if err != nil {
		return nil, err
	}
	var from netip.Addr // the zero one is this node
	if q.Get("from") != "" {
		if from, err = queryAddr(q, "from"); err != nil {
			return nil, err
		}
	}
	if n.table == nil {
		return asked.FrontendAnswer{Without: true}, nil
	}
	found, err := readback.Lookup(readback.Query{From: from, To: to, Protocol: protocol, Port: port})
	if err != nil {
		return nil, err
	}
	want := n.wantedServices()
	if want == nil {
		return nil, errors.New("this node has not built its Services yet")
	}
	nodePort := false
	if s := n.last.Load(); s != nil && s.Nodes[n.name] != nil {
		nodePort = slices.Contains(s.Nodes[n.name].Addresses, to) && want.HasNodePorts(to)
	}
	return asked.FrontendAnswer{
		Kernel: answer.FromKernel(found), Source: found.Source, Firewall: n.foreignChains(),
		Want: answer.Wanted(*want, from, to, protocol, port, nodePort, found.Source),
	}, nil
}

func (n *node) inspectRoute(ctx context.Context, q url.Values) (any, error) {
	to, err := queryAddr(q, "addr")
	if err != nil {
		return nil, err
	}
	var from netip.Addr
	if q.Get("from") != "" {
		if from, err = queryAddr(q, "from"); err != nil {
			return nil, err
		}
	}
	found, err := link.ReadRoute(to, from)
	if err != nil {
		return nil, err
	}
	out := answer.RouteFound(found)
	n.mu.Lock()
	want := n.wantedOverlay
	n.mu.Unlock()
	if want != nil && n.overlay.Mode != overlay.None {
		out.Want = answer.RouteWanted(*want, to)
	}
	if out.Peer.IsValid() && out.State == "" {
		out.Probe = n.probeOverlay(ctx, found.Via, q, to)
	}
	return out, nil
}

// inspectPod looks at a pod of this node, and connects to it.
func (n *node) inspectPod(ctx context.Context, q url.Values) (any, error) {
	to, err := queryAddrPort(q, "addr")
	if err != nil {
		return nil, err
	}
	tcp := cmp.Or(q.Get("protocol"), "tcp") == "tcp"
	s, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	if tcp && !isPod(s, n.name, to) {
		return nil, fmt.Errorf("%w: addr=%s is neither a pod of this node nor an endpoint", run.ErrBadQuery, to)
	}
	out := asked.PodAnswer{Firewall: n.foreignChains()}
	if s.Nodes[n.name] != nil {
		out.HostNetwork = slices.Contains(s.Nodes[n.name].Addresses, to.Addr())
	}
	if !out.HostNetwork && n.cniConfDir != "" {
		found, ok, err := cni.Inspect(n.dataDir, n.bootID, to.Addr())
		if err != nil {
			return nil, err
		}
		out.Plugin = true
		if ok {
			out.Container, out.Link, out.Exists, out.Up, out.Missing = found.Lease.ContainerID, found.Link, found.Exists, found.Up, found.Missing
			out.Since = time.Now().Add(-time.Duration(cni.Now() - found.Lease.Since)).Round(time.Second)
		}
	}
	if tcp {
		out.Asked = true
		out.After, err = connect(ctx, to)
		out.Connected = err == nil
		if err != nil {
			out.Error = err.Error()
		}
	}
	return out, nil
}

// connect opens a TCP connection and resets it.
func connect(ctx context.Context, to netip.AddrPort) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	started := time.Now()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	after := time.Since(started)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // what it names besides is known
		}
		return after, err
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	return after, nil
}

func (n *node) inspectFlow(_ context.Context, q url.Values) (any, error) {
	protocol, err := queryProtocol(q)
	if err != nil {
		return nil, err
	}
	from, err := queryAddrPort(q, "from")
	if err != nil {
		return nil, err
	}
	to, err := queryAddrPort(q, "to")
	if err != nil {
		return nil, err
	}
	e, found, err := conntrack.Find(protocol, from, to)
	if err != nil {
		return nil, err
	}
	return asked.FlowAnswer{Found: found, From: e.Original.Src, To: e.Original.Dst, Answers: e.Reply.Src, Back: e.Reply.Dst}, nil
}
