package conntrack

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

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
func lost(old, b proxy.Backends) bool {
	for _, e := range slices.Concat(old.Outside, old.Inside, old.Keep) {
		if !b.Keeps(e) {
			return true
		}
	}
	return false
}

// A question is which entries to judge: all, or those of some frontends.
type question struct {
	all  bool
	some map[proxy.Frontend]struct{}
}

// stale says whether an entry leads where s does not. local says whether an address is this node's own.
func (q question) stale(e Entry, s proxy.State, local func(netip.Addr) bool) bool {
	if e.Protocol != proxy.UDP && (e.Protocol != proxy.TCP || e.Over || !e.translated()) {
		return false // a TCP connection that is not translated has both its ends, or notices
	}
	f := proxy.Frontend{Addr: e.Original.Dst.Addr(), Protocol: e.Protocol, Port: e.Original.Dst.Port()}
	b, known := s.Frontends[f]
	if !known && !q.asks(f) {
		f.Addr = netip.IPv4Unspecified()
		if e.Original.Dst.Addr().Is6() {
			f.Addr = netip.IPv6Unspecified()
		}
		// The same port of another host is none of ours.
		if b, known = s.Frontends[f]; !e.translated() && !local(e.Original.Dst.Addr()) {
			return false
		}
	}
	switch {
	case known && !flowing(f, b):
		return false
	case !q.asks(f):
		// Of a Service that went while the agent was away: who translates to a pod is asked again.
		return q.all && e.Protocol == proxy.UDP && !known && e.translated() && contains(s.PodRanges, e.Reply.Src.Addr())
	case known:
		return !b.Keeps(e.Reply.Src)
	}
	return e.translated()
}

func (q question) asks(f proxy.Frontend) bool {
	_, some := q.some[f]
	return some
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
}

// maxFilters is how many lists are asked for by frontend: the kernel goes through its table for each. More frontends
// are answered by lists of whole protocols.
const maxFilters = 4

// filters returns which lists have all entries in question, sorted.
func (q question) filters() []filter {
	each, whole := map[filter]struct{}{}, map[filter]struct{}{}
	for f := range q.some {
		wide := filter{six: f.Addr.Is6(), protocol: f.Protocol}
		narrow := wide
		if narrow.port = f.Port; !f.NodePort() {
			narrow.dst = f.Addr
		}
		each[narrow], whole[wide] = struct{}{}, struct{}{}
	}
	if q.all || len(each) > maxFilters {
		each = whole
	}
	if q.all {
		each[filter{false, proxy.UDP, netip.Addr{}, 0}], each[filter{true, proxy.UDP, netip.Addr{}, 0}] = struct{}{}, struct{}{}
	}
	return slices.SortedFunc(maps.Keys(each), func(a, b filter) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), a.dst.Compare(b.dst), cmp.Compare(a.port, b.port), bool2int(a.six)-bool2int(b.six))
	})
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}
