package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/proxy"
)

// A Query is the first packet of a connection, as a node meets it.
type Query struct {
	// From is the source. The zero Addr is this node itself.
	From netip.Addr `json:"from,omitzero"`
	To   netip.Addr `json:"to"`
	// Ping asks about an echo request; Protocol and Port are then without meaning.
	Ping     bool           `json:"ping,omitempty"`
	Protocol proxy.Protocol `json:"protocol,omitempty"`
	Port     uint16         `json:"port,omitempty"`
}

// The kinds of sources. They are those that the rules tell apart.
const (
	FromNode    = "node"    // this node itself
	FromPod     = "pod"     // an address in a pod range, of this node or another one
	FromOutside = "outside" // everything else
)

// The verdicts on a connection.
const (
	// Forwarded goes to one of the Endpoints.
	Forwarded = "forwarded"
	// Refused is answered with a TCP reset or an ICMP error.
	Refused = "refused"
	// Dropped gets no answer.
	Dropped = "dropped"
	// Answered is a ping that this node answers for a VIP.
	Answered = "answered"
	// NotService is addressed to nothing that is a Service's: the table leaves it alone.
	NotService = "not a Service"
)

// A Found is what the rules in the kernel do with a connection now. It is read from the sets and maps themselves, and
// not from what this process believes to have written.
type Found struct {
	Query   Query  `json:"query"`
	Source  string `json:"source"`  // FromNode, FromPod, FromOutside
	Verdict string `json:"verdict"` // Forwarded, Refused, Dropped, Answered, NotService
	// Reason is under which of Reasons such a packet is counted, empty where it is neither refused nor dropped.
	Reason string `json:"reason,omitempty"`
	// Why says in words which element decided it.
	Why string `json:"why"`
	// Table is false where the table is not there at all.
	Table bool `json:"table"`
	// Address says that To is the own address of a Service, so that its other ports are refused; NodePort, that To is
	// this node's and the port is a NodePort.
	Address  bool `json:"address"`
	NodePort bool `json:"nodePort"`
	// Inside says that the list for sources in the cluster decided, since it differs.
	Inside bool `json:"inside"`
	// Outside and Within are the two lists of the frontend; Within is absent where they are the same.
	Outside *FoundBackends `json:"outside,omitempty"`
	Within  *FoundBackends `json:"within,omitempty"`
	// Restricted says that only some sources may come, and Sources which.
	Restricted bool           `json:"restricted,omitempty"`
	Sources    []netip.Prefix `json:"sources,omitempty"`
	// Endpoints are those of the list that decided, with the way that each would be reached.
	Endpoints []FoundEndpoint `json:"endpoints,omitempty"`
	// AnsweredBy is the address of this node that answers a ping.
	AnsweredBy netip.Addr `json:"answeredBy,omitzero"`
}

// FoundBackends is an endpoint list in the kernel.
type FoundBackends struct {
	// Map has the frontend, Element is its key there as nft shows it, and Chain where it leads: "pick4-3", or NoLocalEndpoint.
	Map     string `json:"map"`
	Element string `json:"element"`
	Chain   string `json:"chain"`
	// Endpoints are in the order of their index.
	Endpoints []netip.AddrPort `json:"endpoints"`
	// Affinity is how long a client stays with its endpoint, 0 for not at all; Stays is where the client of the Query
	// was last, the zero AddrPort if nothing is known. It counts only while it is one of Endpoints.
	Affinity time.Duration  `json:"affinity,omitempty"`
	Stays    netip.AddrPort `json:"stays,omitzero"`
	// Missing are indexes that Chain picks and for which there is no endpoint: such connections are refused. It is
	// always empty unless somebody else changed the table.
	Missing []int `json:"missing,omitempty"`
}

// A FoundEndpoint is an endpoint and how connections get there.
type FoundEndpoint struct {
	Index   int            `json:"index"`
	Address netip.AddrPort `json:"address"`
	// Device is the one that leads there, empty if none does.
	Device string `json:"device,omitempty"`
	// Masquerade says that the endpoint sees an address of this node in place of From, and Rule by which rule.
	Masquerade bool   `json:"masquerade"`
	Rule       string `json:"rule,omitempty"`
}

// maxWays is for how many endpoints of one answer the way is looked up.
const maxWays = 200

// Lookup asks the kernel what it does with a connection, in the calling thread's network namespace. It reads single
// elements, no listing.
func Lookup(q Query) (Found, error) {
	c, err := dial(0)
	if err != nil {
		return Found{}, err
	}
	defer c.Close()
	q.From, q.To = q.From.Unmap(), q.To.Unmap()
	if !q.To.IsValid() || q.From.IsValid() && q.From.Is4() != q.To.Is4() {
		return Found{}, fmt.Errorf("look up %s from %s: no addresses of one family", q.To, q.From)
	}
	l := lookups{conn: c, query: q, digit: digit(q.To)}
	f := l.find()
	if l.err != nil {
		return Found{}, fmt.Errorf("look up %s: %w", q.To, l.err)
	}
	return f, nil
}

// lookups are the questions of one Lookup. The first error stays, and answers after it mean nothing.
type lookups struct {
	conn  conn
	query Query
	digit string
	from  netip.Addr // the source address; that of this node is chosen before translation
	err   error
}

// get returns the value of an element, and whether it is there.
func (l *lookups) get(set, key string) (value string, there bool) {
	values, err := l.conn.get(set, []string{key})
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
	exists, err := l.conn.exists()
	l.fail(err)
	if f.Table = exists; !exists {
		f.Source, f.Why = FromOutside, "there is no table inet "+tableName
		return f
	}
	f.Source = l.source(q.From)
	_, f.Address = l.get(addressesSet+l.digit, string(q.To.AsSlice()))
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
	}
	return f
}

// source says which of the rules of nat-prerouting and nat-output takes packets from an address.
func (l *lookups) source(from netip.Addr) string {
	if !from.IsValid() || l.local(from) {
		return FromNode
	}
	if _, in := l.get(podRangesSet+l.digit, string(from.AsSlice())); in {
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
	switch value, there := l.get(pingsSet+l.digit, to); {
	case there:
		f.AnsweredBy, _ = netip.AddrFromSlice([]byte(value))
		f.Verdict, f.Why = Answered, "it is in "+pingsSet+l.digit
	case f.Address:
		f.refuse(ClosedPort, "it is in "+addressesSet+l.digit+", and not in "+pingsSet+l.digit)
	}
}

func (l *lookups) nodePort() bool {
	if l.query.To.IsLoopback() {
		return false
	}
	_, there := l.get(nodePortsSet+l.digit, portKey(l.query.Protocol, l.query.Port))
	return there && l.local(l.query.To)
}

// backends reads the lists of the frontend, in the order of the rules: the first map that has it counts.
func (l *lookups) backends(f *Found) {
	for _, p := range picks() {
		into := &f.Outside
		if p.inside {
			into = &f.Within
		}
		if *into != nil || p.nodePort && !f.NodePort {
			continue
		}
		key := portKey(l.query.Protocol, l.query.Port)
		if !p.nodePort {
			key = string(l.query.To.AsSlice()) + key
		}
		chain, there := l.get(p.frontends+l.digit, key)
		if !there {
			continue
		}
		name := p.frontends + l.digit
		*into = &FoundBackends{Map: name, Element: element{set: name, key: key}.String()[len(name)+1:], Chain: chain}
		l.endpoints(*into, p, key)
		if (*into).Affinity = leadOf(chain).stay; (*into).Affinity > 0 {
			value, _ := l.get(p.affinity+l.digit, string(l.from.AsSlice())+key)
			(*into).Stays = endpointOf(value)
		}
	}
}

// endpoints reads the list that a frontend's chain picks from.
func (l *lookups) endpoints(b *FoundBackends, p pick, key string) {
	n := leadOf(b.Chain).n
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key + string(native(uint32(i)))
	}
	for at := 0; at < n; {
		values, err := l.conn.get(p.endpoints+l.digit, keys[at:min(n, at+maxGet)])
		if err != nil {
			l.fail(err)
			return
		}
		for _, v := range values {
			b.Endpoints = append(b.Endpoints, endpointOf(v))
		}
		if at += len(values); at < n && len(values) == 0 {
			b.Missing = append(b.Missing, at)
			b.Endpoints = append(b.Endpoints, netip.AddrPort{})
			at++
		}
	}
}

// leadOf is what a chain's name says, the zero lead if it is none of ours.
func leadOf(chain string) lead {
	if _, ok := pickChainNamed(chain); !ok {
		return lead{}
	}
	_, numbers, _ := strings.Cut(chain[strings.IndexAny(chain, "46"):], "-")
	count, seconds, _ := strings.Cut(numbers, "-")
	n, _ := strconv.Atoi(count)
	stay, _ := strconv.Atoi(seconds) // "" is 0
	return lead{n, time.Duration(stay) * time.Second}
}

// decide says what becomes of a connection to a Service.
func (l *lookups) decide(f *Found) {
	by := f.Outside
	if f.Source != FromOutside && f.Within != nil {
		by, f.Inside = f.Within, true
	}
	key := string(f.Query.To.AsSlice()) + portKey(f.Query.Protocol, f.Query.Port)
	_, empty := l.get(emptySet+l.digit, key)
	l.restricted(f, key)
	switch {
	case f.Restricted && !l.allowed(key):
		f.drop(SourceRange, restrictedSet+l.digit+" has it, and "+sourcesSet+l.digit+" has no range with the source")
	case by == nil && empty:
		f.refuse(NoEndpoint, "it is in "+emptySet+l.digit)
	case by == nil && f.Address:
		f.refuse(ClosedPort, "it is in "+addressesSet+l.digit+", and with this port in no map")
	case by == nil && f.NodePort:
		f.refuse(NoEndpoint, "it is in "+nodePortsSet+l.digit+", and in no map")
	case by == nil: // only sources inside are served, and it is no Service's own address: never written by us
	case by.Chain == NoLocalEndpoint:
		f.drop(NoLocalEndpoint, by.Map+" has it with "+by.Chain)
	default:
		f.Verdict, f.Why = Forwarded, by.Map+" has it with "+by.Chain
		for i, ap := range by.Endpoints {
			if ap.IsValid() {
				f.Endpoints = append(f.Endpoints, l.way(f, i, ap))
			}
		}
		if len(f.Endpoints) == 0 {
			f.refuse(ClosedPort, by.Chain+" finds no endpoint: the table was changed by somebody else")
		}
	}
}

// restricted reads for which sources the frontend is.
func (l *lookups) restricted(f *Found, key string) {
	if _, f.Restricted = l.get(restrictedSet+l.digit, key); !f.Restricted {
		return
	}
	all := contents{}
	l.fail(l.conn.readElements(set{name: sourcesSet + l.digit, key: make(datatypes, 2), interval: true}, all))
	for e := range all {
		if strings.HasPrefix(e.key, key) {
			f.Sources = append(f.Sources, prefixOf(e.key[len(key):], e.end[len(key):]))
		}
	}
	slices.SortFunc(f.Sources, netip.Prefix.Compare)
}

// allowed says whether one of the ranges has the source.
func (l *lookups) allowed(key string) bool {
	_, there := l.get(sourcesSet+l.digit, key+string(l.from.AsSlice()))
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
	fromPod := in(podRangesSet, from)
	switch {
	case podLink && in(hairpinsSet, from+to):
		e.Rule = "pod to itself"
	case podLink && !overlay, fromPod && in(podRangesSet, to):
		return e
	case fromPod:
		e.Rule = "pod to outside"
	case f.Address:
		e.Rule = "by a ClusterIP or VIP"
	case f.NodePort:
		e.Rule = "by a NodePort"
	case overlay:
		e.Rule = "to a pod elsewhere"
	}
	e.Masquerade = e.Rule != ""
	return e
}

func (l *lookups) isOverlay(device string) bool {
	_, there := l.get(overlaysSet, interfaceName(device))
	return there
}

// endpointOf is the inverse of endpointValue; the zero AddrPort for what is none.
func endpointOf(value string) netip.AddrPort {
	if len(value) < 8 {
		return netip.AddrPort{}
	}
	n := len(value) - 4
	a, ok := netip.AddrFromSlice([]byte(value[:n]))
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(value[n])<<8|uint16(value[n+1]))
}

// exists says whether the table is there.
func (c conn) exists() (bool, error) {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, tableName)
	_, err := c.Execute(message(unix.NFT_MSG_GETTABLE, 0, a))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// maxGet is how many elements are asked for at once.
const maxGet = 256

// get returns the values of elements, up to the first that is not there. In an interval set a key is there if an
// interval has it.
func (c conn) get(name string, keys []string) ([]string, error) {
	var list attrs
	for _, key := range keys {
		list.element(set{}, element{key: key}, "")
	}
	var a attrs
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, name)
	a.bytes(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
	sent, err := c.Send(message(unix.NFT_MSG_GETSETELEM, netlink.Acknowledge, a))
	if err != nil {
		return nil, fmt.Errorf("get element of %s: %w", name, err)
	}
	var values []string
	for {
		replies, err := c.Receive()
		if errors.Is(err, unix.ENOENT) {
			// Without a table or set there is nothing in it either.
			return values, nil
		}
		if err != nil {
			return nil, fmt.Errorf("get element of %s: %w", name, err)
		}
		for _, m := range replies {
			switch {
			case m.Header.Sequence != sent.Header.Sequence:
			case m.Header.Type == netlink.Error: // the acknowledgement
				return values, nil
			default:
				eachElement(m, func(_, _, value string, end bool) {
					if !end {
						values = append(values, value)
					}
				})
			}
		}
	}
}
