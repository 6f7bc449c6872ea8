package conntrack

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// flowing says whether a frontend has flows that nobody else ends. TCP has where its Service wants such reset: else an
// endpoint that is gone does not acknowledge, and the client notices in its own time. SCTP notices by itself.
func flowing(f proxy.Frontend, b proxy.Backends) bool {
	return f.Protocol == proxy.UDP || f.Protocol == proxy.TCP && b.Reset
}

// Build returns the frontends whose flows have to be looked at when before becomes now, sorted: those that lost an
// endpoint, got their first one, came or went. One that merely got another endpoint leaves its flows where they are.
func Build(before, now proxy.State) []proxy.Frontend {
	changed := map[proxy.Frontend]struct{}{}
	for f, old := range before.Frontends {
		b, stays := now.Frontends[f]
		if flowing(f, old) && (!stays || old.Empty() != b.Empty() || lost(old, b)) {
			changed[f] = struct{}{}
		}
	}
	for f, b := range now.Frontends {
		// What was before an option was switched on may have lost its endpoint.
		if old, was := before.Frontends[f]; flowing(f, b) && (!was || !flowing(f, old)) {
			changed[f] = struct{}{}
		}
	}
	return slices.SortedFunc(maps.Keys(changed), proxy.Frontend.Compare)
}

// lost says whether an endpoint of old is not in b.
func lost(old, b proxy.Backends) bool { return len(departed(old, b)) > 0 }

// departed returns the endpoints of old that are not in b.
func departed(old, b proxy.Backends) (out []netip.AddrPort) {
	for _, e := range slices.Concat(old.Outside, old.Inside, old.Keep) {
		if !b.Keeps(e) {
			out = append(out, e)
		}
	}
	return out
}

// A question is which entries to judge: all, or those of some frontends. gone is how TCP entries are found.
type question struct {
	all  bool
	some map[proxy.Frontend]pods // and which endpoints their Services have
	gone map[filter]struct{}
}

// stale says whether an entry leads where s does not. local says whether an address is this node's own.
func (q question) stale(e Entry, s proxy.State, local func(netip.Addr) bool) bool {
	if e.Protocol != proxy.UDP && (e.Protocol != proxy.TCP || e.Over || !e.translated()) {
		return false // a TCP connection that is not translated has both its ends, or notices
	}
	f := q.frontend(e, s, local)
	b, known := s.Frontends[f]
	switch {
	case known && !flowing(f, b):
		return false
	case !q.asks(f):
		// Of a Service that went while the agent was away: who translates to a pod is asked again.
		return q.all && e.Protocol == proxy.UDP && !known && e.translated() && contains(s.PodRanges, e.Reply.Src.Addr())
	case e.Protocol == proxy.TCP && (hasPod(b, e.Reply.Src.Addr()) || q.some[f].has(e.Reply.Src.Addr())):
		return false // it got no new connections here, or by another port: it is there
	case known:
		return !b.Keeps(e.Reply.Src)
	}
	return e.translated()
}

// frontend is the one by which an entry came.
func (q question) frontend(e Entry, s proxy.State, local func(netip.Addr) bool) proxy.Frontend {
	f := proxy.Frontend{Addr: e.Original.Dst.Addr(), Protocol: e.Protocol, Port: e.Original.Dst.Port()}
	_, known := s.Frontends[f]
	// The same port of another host, or of an address without NodePorts, is none of ours, whoever translates it.
	if dst := f.Addr; !known && !q.asks(f) && !dst.IsLoopback() && local(dst) && contains(s.NodePortRanges, dst) {
		f.Addr = netip.IPv4Unspecified()
		if dst.Is6() {
			f.Addr = netip.IPv6Unspecified()
		}
	}
	return f
}

// lingers says whether an entry that is not stale came by a way by which nothing comes any more.
func (q question) lingers(e Entry, s proxy.State, local func(netip.Addr) bool) (way, bool) {
	if e.Protocol != proxy.TCP || e.Over || !e.translated() {
		return way{}, false
	}
	f := q.frontend(e, s, local)
	b, known := s.Frontends[f]
	return way{f, e.Reply.Src}, known && b.Reset && !b.Keeps(e.Reply.Src)
}

func (q question) asks(f proxy.Frontend) bool {
	_, some := q.some[f]
	return some
}

// pods are addresses of endpoints.
type pods proxy.Set[netip.Addr]

func (p pods) has(a netip.Addr) bool {
	_, is := p[a]
	return is
}

// hasPod says whether an endpoint of b, or one that keeps what it has, is at an address, by any port.
func hasPod(b proxy.Backends, a netip.Addr) bool {
	for _, list := range [][]netip.AddrPort{b.Outside, b.Inside, b.Keep} {
		if _, is := slices.BinarySearchFunc(list, a, func(e netip.AddrPort, a netip.Addr) int { return e.Addr().Compare(a) }); is {
			return true
		}
	}
	return false
}

// living returns, of changed frontends, the addresses of endpoints that their Service has now, by whichever of its frontends: a
// frontend that goes takes no endpoint with it. It is for TCP frontends; UDP flows have to find another way at once.
func living(before, now proxy.State, changed []proxy.Frontend) map[proxy.Frontend]pods {
	out, of := make(map[proxy.Frontend]pods, len(changed)), map[model.Key]proxy.Set[netip.Addr]{}
	for _, f := range changed {
		owner, is := ownerOf(f, before, now)
		if out[f] = nil; is && f.Protocol == proxy.TCP {
			if of[owner] == nil {
				of[owner] = proxy.Set[netip.Addr]{}
			}
			out[f] = pods(of[owner])
		}
	}
	now.AddEndpoints(of)
	return out
}

func contains(ranges proxy.Set[netip.Prefix], a netip.Addr) bool {
	for p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// A filter is what the kernel is asked to list. Without an address it is all of a protocol.
type filter struct {
	six      bool
	protocol proxy.Protocol
	dst      netip.Addr
	port     uint16
	endpoint netip.AddrPort // in place of dst and port: where flows are translated to
}

// listed is the filter that the kernel is asked for. Of IPv6 addresses kernels since 5.8 list all entries but those that are asked for
// (ctnetlink_filter_match_tuple), so it is by port alone, which finds others in addition.
func (f filter) listed() filter {
	if !f.six {
		return f
	}
	if f.dst = (netip.Addr{}); f.endpoint.IsValid() {
		f.endpoint = netip.AddrPortFrom(netip.IPv6Unspecified(), f.endpoint.Port())
	}
	return f
}

// maxFilters is how many lists are asked for, by protocol: the kernel goes through its table for each. More frontends or
// endpoints are answered by lists of whole protocols.
const maxFilters = 4

// gone returns how the entries of changed TCP frontends are found: by the endpoints that they lost, which are one or two
// where frontends and connections are many. Where it is not known what they had, it is all of the protocol. ways lead to endpoints that are
// there, but not by that frontend any more.
func gone(before, now proxy.State, changed map[proxy.Frontend]pods) (out map[filter]struct{}, ways []way) {
	out = map[filter]struct{}{}
	for f, alive := range changed {
		if f.Protocol != proxy.TCP {
			continue
		}
		old, b := before.Frontends[f], now.Frontends[f]
		if !flowing(f, old) {
			out[filter{six: f.Addr.Is6(), protocol: proxy.TCP}] = struct{}{}
			continue
		}
		for _, e := range departed(old, b) {
			if alive.has(e.Addr()) || hasPod(b, e.Addr()) {
				ways = append(ways, way{f, e})
				continue
			}
			out[filter{six: f.Addr.Is6(), protocol: proxy.TCP, endpoint: e}] = struct{}{}
		}
	}
	return out, ways
}

// filters returns which lists have all entries in question, sorted.
func (q question) filters() []filter {
	udp := map[filter]struct{}{}
	for f := range q.some {
		if f.Protocol == proxy.TCP {
			continue // q.gone has them
		}
		narrow := filter{six: f.Addr.Is6(), protocol: f.Protocol, port: f.Port}
		if !f.NodePort() {
			narrow.dst = f.Addr
		}
		udp[narrow] = struct{}{}
	}
	if q.all {
		for _, six := range []bool{false, true} {
			udp[filter{six: six, protocol: proxy.UDP}] = struct{}{}
		}
	}
	each := bounded(udp)
	maps.Copy(each, bounded(q.gone))
	return slices.SortedFunc(maps.Keys(each), func(a, b filter) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), a.dst.Compare(b.dst), cmp.Compare(a.port, b.port), a.endpoint.Compare(b.endpoint), bool2int(a.six)-bool2int(b.six))
	})
}

// bounded returns filters, or those of whole protocols if one of them is such, or there are too many.
func bounded(filters map[filter]struct{}) map[filter]struct{} {
	whole, wide := map[filter]struct{}{}, len(filters) > maxFilters
	narrow := make(map[filter]struct{}, len(filters))
	for f := range filters {
		all := filter{six: f.six, protocol: f.protocol}
		wide = wide || f == all
		whole[all], narrow[f.listed()] = struct{}{}, struct{}{}
	}
	if wide {
		return whole
	}
	return narrow
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}
