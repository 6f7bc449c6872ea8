package readback

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// maxWays is for how many endpoints of one answer the way is looked up.
const maxWays = 200

// Lookup asks the kernel what it does with a connection, in the calling thread's network namespace. It reads single
// elements, no listing.
func Lookup(q Query) (Found, error) {
	c, err := nfnetlink.Dial(0)
	if err != nil {
		return Found{}, err
	}
	defer c.Close()
	q.From, q.To = q.From.Unmap(), q.To.Unmap()
	if !q.To.IsValid() || q.From.IsValid() && q.From.Is4() != q.To.Is4() {
		return Found{}, fmt.Errorf("look up %s from %s: no addresses of one family", q.To, q.From)
	}
	l := lookups{conn: c, query: q, digit: ruleset.Digit(q.To)}
	f := l.find()
	if l.err != nil {
		return Found{}, fmt.Errorf("look up %s: %w", q.To, l.err)
	}
	return f, nil
}

// lookups are the questions of one Lookup. The first error stays, and answers after it mean nothing.
type lookups struct {
	conn  nfnetlink.Conn
	query Query
	digit string
	from  netip.Addr // the source address; that of this node is chosen before translation
	err   error

	byAddress bool // the frontends of addresses have the destination
}

// get returns the value of an element, and whether it is there.
func (l *lookups) get(set, key string) (value string, there bool) {
	values, err := l.conn.Get(set, []string{key})
	l.fail(err)
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

func (l *lookups) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

func (l *lookups) find() Found {
	q := l.query
	f := Found{Query: q, Verdict: NotService, Why: "no set or map of the table has its destination"}
	exists, err := l.conn.Exists()
	l.fail(err)
	if f.Table = exists; !exists {
		f.Source, f.Why = FromOutside, "there is no table inet "+nfnetlink.TableName
		return f
	}
	f.Source = l.source(q.From)
	_, f.Address = l.get(ruleset.AddressesSet+l.digit, string(q.To.AsSlice()))
	if q.Ping {
		l.ping(&f)
		return f
	}
	unroutable := false
	if l.from = q.From; !q.From.IsValid() {
		out, err := link.ReadRoute(q.To, netip.Addr{})
		l.fail(err)
		l.from, unroutable = out.Src, out.Kind == link.NoRoute || out.Kind == link.Unreachable
	}
	f.NodePort = l.nodePort()
	l.backends(&f)
	if unroutable {
		f.Verdict, f.Why = Refused, "this node has no route to it, so that its own connections end before the rules"
		return f
	}
	if f.Address || f.NodePort || f.Outside != nil || f.Within != nil {
		l.decide(&f)
	} else if l.unallocated() {
		f.drop(ruleset.Unallocated, "it is in "+ruleset.ServiceRangesSet+l.digit+", and no Service has it")
	}
	return f
}

// unallocated says whether an address could be a Service's, and is none's.
func (l *lookups) unallocated() bool {
	_, in := l.get(ruleset.ServiceRangesSet+l.digit, string(l.query.To.AsSlice()))
	_, of := l.get(ruleset.OthersSet+l.digit, string(l.query.To.AsSlice()))
	return in && !of
}

// source says which of the rules of nat-prerouting and nat-output takes packets from an address.
func (l *lookups) source(from netip.Addr) string {
	if !from.IsValid() || l.local(from) {
		return FromNode
	}
	if _, in := l.get(ruleset.PodRangesSet+l.digit, string(from.AsSlice())); in {
		return FromPod
	}
	return FromOutside
}

// local says whether an address is this node's own.
func (l *lookups) local(a netip.Addr) bool {
	route, err := link.ReadRoute(a, netip.Addr{})
	l.fail(err)
	return err == nil && route.Kind == link.Local
}

func (f *Found) refuse(reason, why string) { f.Verdict, f.Reason, f.Why = Refused, reason, why }
func (f *Found) drop(reason, why string)   { f.Verdict, f.Reason, f.Why = Dropped, reason, why }

func (l *lookups) ping(f *Found) {
	to := string(f.Query.To.AsSlice())
	switch value, there := l.get(ruleset.PingsSet+l.digit, to); {
	case there:
		f.AnsweredBy, _ = netip.AddrFromSlice([]byte(value))
		f.Verdict, f.Why = Answered, "it is in "+ruleset.PingsSet+l.digit
	case f.Address:
		f.refuse(ruleset.ClosedPort, "it is in "+ruleset.AddressesSet+l.digit+", and not in "+ruleset.PingsSet+l.digit)
	}
}

func (l *lookups) nodePort() bool {
	if l.query.To.IsLoopback() {
		return false
	}
	_, there := l.get(ruleset.NodePortsSet+l.digit, ruleset.PortKey(l.query.Protocol, l.query.Port))
	_, served := l.get(ruleset.NodePortRangesSet+l.digit, string(l.query.To.AsSlice()))
	return there && served && l.local(l.query.To)
}

// backends reads the lists of the frontend, in the order of the rules: the first map that has it counts.
func (l *lookups) backends(f *Found) {
	for _, p := range ruleset.Picks() {
		into := &f.Outside
		if p.Inside {
			into = &f.Within
		}
		if *into != nil || p.NodePort && (!f.NodePort || l.byAddress) {
			continue
		}
		key := ruleset.PortKey(l.query.Protocol, l.query.Port)
		if !p.NodePort {
			key = string(l.query.To.AsSlice()) + key
		}
		word, there := l.get(p.Frontends+l.digit, key)
		if !there {
			continue
		}
		chain := p.ChainOf(l.digit, word)
		l.byAddress = l.byAddress || !p.NodePort && !p.Inside // before NodePorts, also those for sources inside
		name := p.Frontends + l.digit
		*into = &FoundBackends{Map: name, Element: ruleset.ElementText(nfnetlink.Element{Set: name, Key: key})[len(name)+1:], Chain: chain}
		l.endpoints(*into, p, key)
		l.chosen(*into)
		if (*into).Affinity = ruleset.LeadOf(chain).Stay; (*into).Affinity > 0 {
			value, _ := l.get(p.Affinity+l.digit, key+string(l.from.AsSlice()))
			(*into).Stays = ruleset.EndpointOf(value)
		}
	}
}

// endpoints reads the list that a frontend's chain picks from.
func (l *lookups) endpoints(b *FoundBackends, p ruleset.Pick, key string) {
	lead := ruleset.LeadOf(b.Chain)
	n := lead.N
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key + ruleset.Index(i)
	}
	for at := 0; at < n; {
		values, err := l.conn.Get(p.EndpointsOf(lead)+l.digit, keys[at:min(n, at+nfnetlink.MaxGet)])
		if err != nil {
			l.fail(err)
			return
		}
		for _, v := range values {
			b.Endpoints = append(b.Endpoints, ruleset.EndpointOf(v))
		}
		if at += len(values); at < n && len(values) == 0 {
			b.Missing = append(b.Missing, at)
			b.Endpoints = append(b.Endpoints, netip.AddrPort{})
			at++
		}
	}
}

// chosen says what the hash of a chain chooses, if one does, and makes a list of endpoints of the one of slots.
func (l *lookups) chosen(b *FoundBackends) {
	lead := ruleset.LeadOf(b.Chain)
	if lead.By == proxy.Random {
		return
	}
	b.Choice = lead.By.String()
	if slot, known := lead.Slot(netip.AddrPortFrom(l.from, l.query.FromPort)); known {
		b.Chosen = b.Endpoints[slot]
	}
	slices.SortFunc(b.Endpoints, netip.AddrPort.Compare)
	b.Endpoints = slices.Compact(b.Endpoints)
}

// decide says what becomes of a connection to a Service.
func (l *lookups) decide(f *Found) {
	by := f.Outside
	if f.Source != FromOutside && f.Within != nil {
		by, f.Inside = f.Within, true
	}
	key := string(f.Query.To.AsSlice()) + ruleset.PortKey(f.Query.Protocol, f.Query.Port)
	_, empty := l.get(ruleset.EmptySet+l.digit, key)
	restricted, sources := ruleset.RestrictedSet, ruleset.SourcesSet
	if f.NodePort && !l.byAddress {
		restricted, sources, key = ruleset.RestrictedNodePortsSet, ruleset.NodePortSourcesSet, ruleset.PortKey(f.Query.Protocol, f.Query.Port)
	}
	l.restricted(f, restricted, sources, key)
	switch {
	case f.Restricted && !l.allowed(sources, key):
		f.drop(ruleset.SourceRange, restricted+l.digit+" has it, and "+sources+l.digit+" has no range with the source")
	case by == nil && empty:
		f.refuse(ruleset.NoEndpoint, "it is in "+ruleset.EmptySet+l.digit)
	case by == nil && f.Address:
		f.refuse(ruleset.ClosedPort, "it is in "+ruleset.AddressesSet+l.digit+", and with this port in no map")
	case by == nil && f.NodePort:
		f.refuse(ruleset.NoEndpoint, "it is in "+ruleset.NodePortsSet+l.digit+", and in no map")
	case by == nil: // only sources inside are served, and it is no Service's own address: never written by us
	case by.Chain == ruleset.NoLocalEndpoint:
		f.drop(ruleset.NoLocalEndpoint, by.Map+" has it with "+by.Chain)
	default:
		f.Verdict, f.Why = Forwarded, by.Map+" has it with "+by.Chain
		for i, ap := range by.Endpoints {
			if ap.IsValid() {
				f.Endpoints = append(f.Endpoints, l.way(f, i, ap))
			}
		}
		if len(f.Endpoints) == 0 {
			f.refuse(ruleset.ClosedPort, by.Chain+" finds no endpoint: the table was changed by somebody else")
		}
	}
}

// restricted reads for which sources the frontend is.
func (l *lookups) restricted(f *Found, restricted, sources, key string) {
	if _, f.Restricted = l.get(restricted+l.digit, key); !f.Restricted {
		return
	}
	all := nfnetlink.Contents{}
	l.fail(l.conn.Elements(nfnetlink.Set{Name: sources + l.digit, Key: make(nfnetlink.Datatypes, 2), Interval: true}, all))
	for e := range all {
		if strings.HasPrefix(e.Key, key) {
			f.Sources = append(f.Sources, ruleset.PrefixOf(e.Key[len(key):], e.End[len(key):]))
		}
	}
	slices.SortFunc(f.Sources, netip.Prefix.Compare)
}

// allowed says whether one of the ranges has the source.
func (l *lookups) allowed(sources, key string) bool {
	_, there := l.get(sources+l.digit, key+string(l.from.AsSlice()))
	return there
}

// way says how an endpoint is reached, by the rules of nat-postrouting in their order.
func (l *lookups) way(f *Found, i int, ap netip.AddrPort) FoundEndpoint {
	e := FoundEndpoint{Index: i, Address: ap}
	if i >= maxWays {
		return e
	}
	route, err := link.ReadRoute(ap.Addr(), netip.Addr{})
	l.fail(err)
	if route.Kind != link.Unicast && route.Kind != link.Local {
		return e
	}
	e.Device = route.Device.Name
	if route.Kind == link.Local {
		return e
	}
	in := func(set, key string) bool { _, there := l.get(set+l.digit, key); return there }
	overlay := l.isOverlay(e.Device)
	podLink := strings.HasPrefix(e.Device, link.PodPrefix)
	from, to := string(l.from.AsSlice()), string(ap.Addr().AsSlice())
	fromPod := in(ruleset.PodRangesSet, from)
	switch {
	case podLink && in(ruleset.HairpinsSet, from+to):
		e.Rule = "pod to itself"
	case podLink && !overlay:
		return e
	case fromPod && in(ruleset.PodRangesSet, to):
		e.Rule = l.podElsewhere(f)
	case fromPod:
		e.Rule = "pod to outside"
	case f.Address:
		e.Rule = "by a ClusterIP or VIP"
	case in(ruleset.ExternalsSet, string(l.query.To.AsSlice())):
		e.Rule = "by an external address"
	case f.NodePort:
		e.Rule = "by a NodePort"
	case overlay:
		e.Rule = "to a pod elsewhere"
	}
	e.Masquerade = e.Rule != ""
	return e
}

// podElsewhere is the rule of pod-to-pod that masquerades, or "".
func (l *lookups) podElsewhere(f *Found) string {
	route, err := link.ReadRoute(l.from, netip.Addr{})
	l.fail(err)
	if strings.HasPrefix(route.Device.Name, link.PodPrefix) && !l.isOverlay(route.Device.Name) {
		return ""
	}
	to := string(l.query.To.AsSlice())
	if _, vip := l.get(ruleset.PingsSet+l.digit, to); vip {
		return "pod elsewhere by a VIP"
	}
	if _, external := l.get(ruleset.ExternalsSet+l.digit, to); external {
		return "pod elsewhere by an external address"
	}
	if f.NodePort && !f.Address {
		return "pod elsewhere by a NodePort"
	}
	return ""
}

func (l *lookups) isOverlay(device string) bool {
	_, there := l.get(ruleset.OverlaysSet, ruleset.InterfaceName(device))
	return there
}
