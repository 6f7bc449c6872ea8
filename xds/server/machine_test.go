package server

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/xds"
)

// A fakeEnvoy keeps what it is sent as Envoy does, and complains when it could lose a request. The version of a
// resource says what it needs: "3:a,b" is the third version and needs a and b.
type fakeEnvoy struct {
	fail   func(format string, args ...any)
	random *rand.Rand
	// have is name → version by kind.
	have [6]map[string]string
	// active clusters can be routed to; the others wait for endpoints.
	active map[string]bool
	// warming clusters were added or changed, and were not told their endpoints since.
	warming map[string]bool
	// asked are the kinds with a subscription, names what is subscribed by name.
	asked [6]bool
	names [6]map[string]bool
	// poison are versions that are refused; flaky refuses at random.
	poison map[string]bool
	flaky  bool
	// lenient allows hosts before secrets: a listener that was refused and is tried again does not stop hosts.
	lenient bool
	in      []*discoveryv3.DeltaDiscoveryResponse
	out     []*discoveryv3.DeltaDiscoveryRequest
	sent    int // resources received
}

func newFakeEnvoy(random *rand.Rand, fail func(string, ...any)) *fakeEnvoy {
	e := &fakeEnvoy{fail: fail, random: random, active: map[string]bool{}, warming: map[string]bool{}, poison: map[string]bool{}}
	for i := range e.have {
		e.have[i], e.names[i] = map[string]string{}, map[string]bool{}
	}
	return e
}

func needs(version string) []string {
	_, list, _ := strings.Cut(version, ":")
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// connect starts a stream: Envoy asks for what it has subscribed, saying what it has.
func (e *fakeEnvoy) connect() {
	e.in, e.out = nil, nil
	e.asked[xds.Cluster] = true
	for _, i := range e.random.Perm(6) {
		kind := xds.Kind(i)
		if e.asked[kind] {
			e.request(kind, maps.Clone(e.have[kind]))
		}
	}
}

func (e *fakeEnvoy) request(kind xds.Kind, versions map[string]string) {
	e.out = append(e.out, &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: kind.TypeURL(), InitialResourceVersions: versions,
		ResourceNamesSubscribe: slices.Sorted(maps.Keys(e.names[kind])),
	})
}

func (e *fakeEnvoy) subscribe(kind xds.Kind, name string) {
	if e.names[kind][name] {
		return // Envoy does not ask again
	}
	e.asked[kind], e.names[kind][name] = true, true
	e.out = append(e.out, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.TypeURL(), ResourceNamesSubscribe: []string{name}})
}

func (e *fakeEnvoy) unsubscribe(kind xds.Kind, name string) {
	delete(e.names[kind], name)
	delete(e.have[kind], name)
	e.out = append(e.out, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.TypeURL(), ResourceNamesUnsubscribe: []string{name}})
}

// handle takes the next response.
func (e *fakeEnvoy) handle() {
	response := e.in[0]
	e.in = e.in[1:]
	kind, _ := xds.KindOf(response.GetTypeUrl())
	e.sent += len(response.GetResources())
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()}
	bad := e.flaky && e.random.IntN(8) == 0
	for _, r := range response.GetResources() {
		bad = bad || e.poison[kind.String()+r.GetName()+r.GetVersion()]
	}
	if bad {
		ack.ErrorDetail = &statuspb.Status{Message: "bad"}
		for _, r := range response.GetResources() {
			if kind == xds.Endpoints {
				e.activate(r.GetName()) // Envoy stops waiting
			}
		}
		e.out = append(e.out, ack)
		return
	}
	for _, r := range response.GetResources() {
		e.add(kind, r.GetName(), r.GetVersion())
	}
	for _, name := range response.GetRemovedResources() {
		e.remove(kind, name)
	}
	e.out = append(e.out, ack)
	if kind == xds.Cluster && !e.asked[xds.Listener] {
		e.asked[xds.Listener] = true
		e.request(xds.Listener, nil)
	}
}

func (e *fakeEnvoy) add(kind xds.Kind, name, version string) {
	if (kind == xds.Endpoints || kind == xds.Secret || kind == xds.RouteTable) && !e.names[kind][name] {
		return
	}
	old, had := e.have[kind][name]
	e.have[kind][name] = version
	switch kind {
	case xds.Cluster:
		if !had {
			e.active[name] = false
		}
		e.warming[name] = old != version
		for _, endpoints := range needs(version) {
			e.subscribe(xds.Endpoints, endpoints)
		}
		if had {
			e.dropEndpoints(old)
		}
	case xds.Endpoints:
		e.activate(name)
	case xds.Listener:
		for _, secret := range needs(version) {
			e.subscribe(xds.Secret, secret)
		}
		e.subscribe(xds.RouteTable, "all")
	case xds.RouteTable:
		if !e.asked[xds.VirtualHost] {
			e.asked[xds.VirtualHost] = true
			e.request(xds.VirtualHost, nil)
		}
	case xds.VirtualHost:
		for _, cluster := range needs(version) {
			if !e.active[cluster] {
				e.fail("host %s came before its cluster %s could be used", name, cluster)
			}
		}
		for l := range e.have[xds.Listener] {
			for _, secret := range needs(e.have[xds.Listener][l]) {
				if e.have[xds.Secret][secret] == "" && !e.lenient {
					e.fail("host %s came before secret %s", name, secret)
				}
			}
		}
	}
}

// activate ends the wait of the clusters that use the endpoints.
func (e *fakeEnvoy) activate(endpoints string) {
	for cluster, v := range e.have[xds.Cluster] {
		if slices.Contains(needs(v), endpoints) {
			e.active[cluster], e.warming[cluster] = true, false
		}
	}
}

func (e *fakeEnvoy) remove(kind xds.Kind, name string) {
	version, had := e.have[kind][name]
	if !had {
		return
	}
	delete(e.have[kind], name)
	if kind != xds.Cluster {
		return
	}
	delete(e.active, name)
	delete(e.warming, name)
	for host, v := range e.have[xds.VirtualHost] {
		if v == "unknown" || slices.Contains(needs(v), name) {
			e.fail("cluster %s went while host %s used it", name, host)
		}
	}
	e.dropEndpoints(version)
}

// dropEndpoints unsubscribes from what the version of a cluster used and no other uses.
func (e *fakeEnvoy) dropEndpoints(version string) {
	for _, endpoints := range needs(version) {
		used := false
		for _, v := range e.have[xds.Cluster] {
			used = used || slices.Contains(needs(v), endpoints)
		}
		if !used {
			e.unsubscribe(xds.Endpoints, endpoints)
		}
	}
}

// randomTarget makes a consistent configuration. As a Builder does, it takes what is the same from the last one.
func randomTarget(random *rand.Rand, last *xds.Resources) *xds.Resources {
	var r xds.Resources
	put := func(kind xds.Kind, name string, needs ...string) {
		resource := &xds.Resource{
			Kind: kind, Name: name, Version: fmt.Sprintf("%d:%s", random.IntN(3), strings.Join(needs, ",")),
			Needs: needs, Last: name == "ready",
		}
		if last != nil {
			if old := last.Get(kind, name); old != nil && old.Version == resource.Version {
				resource = old
			}
		}
		r.Put(resource)
	}
	var clusters, secrets []string
	for i := range 5 {
		put(xds.Endpoints, fmt.Sprintf("e%d", i))
	}
	for i := range 7 {
		if name := fmt.Sprintf("c%d", i); random.IntN(3) > 0 {
			clusters = append(clusters, name)
			put(xds.Cluster, name, fmt.Sprintf("e%d", random.IntN(5)))
		}
	}
	for i := range 4 {
		if name := fmt.Sprintf("default/s%d", i); i == 0 || random.IntN(2) > 0 {
			secrets = append(secrets, name)
			put(xds.Secret, name)
		}
	}
	put(xds.Listener, "https", secrets...)
	put(xds.Listener, "ready")
	r.Put(&xds.Resource{Kind: xds.RouteTable, Name: "all", Version: "0"})
	put(xds.VirtualHost, "all/_default")
	for i := range 6 {
		if random.IntN(4) == 0 {
			continue
		}
		var needs []string
		for _, c := range clusters {
			if random.IntN(3) == 0 {
				needs = append(needs, c)
			}
		}
		put(xds.VirtualHost, fmt.Sprintf("all/h%d", i), needs...)
	}
	return &r
}

// A play is a machine and an Envoy, with messages on their way, and a clock.
type play struct {
	*testing.T
	random  *rand.Rand
	now     time.Time
	machine *machine
	envoy   *fakeEnvoy
	target  *xds.Resources
	log     []string

	reconnects bool
}

func newPlay(t *testing.T, seed uint64) *play {
	p := &play{T: t, random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0)}
	p.envoy = newFakeEnvoy(p.random, func(format string, args ...any) {
		t.Fatalf("seed %d: "+format+"\n%s", append(append([]any{seed}, args...), strings.Join(p.log, "\n"))...)
	})
	p.target = randomTarget(p.random, p.target)
	p.reconnect()
	return p
}

func (p *play) note(format string, args ...any) { p.log = append(p.log, fmt.Sprintf(format, args...)) }

// reconnect starts a new stream; messages on their way are lost.
func (p *play) reconnect() {
	p.note("connect")
	p.machine = newMachine(5 * time.Second)
	p.envoy.connect()
	if p.random.IntN(2) == 0 {
		p.machine.Set(p.target)
	} else {
		defer func() {
			p.machine.Set(p.target)
			p.send()
		}()
	}
	p.send()
}

func (p *play) send() {
	for _, r := range p.machine.Send(p.now) {
		var names []string
		for _, r := range r.GetResources() {
			names = append(names, r.GetName()+"@"+r.GetVersion())
		}
		p.note("send %s: %s removed %v", r.GetTypeUrl()[strings.LastIndex(r.GetTypeUrl(), ".")+1:], names, r.GetRemovedResources())
		if len(r.GetResources())+len(r.GetRemovedResources()) == 0 && r.GetTypeUrl() != xds.Cluster.TypeURL() {
			p.Fatalf("an empty response of type %s", r.GetTypeUrl())
		}
		p.envoy.in = append(p.envoy.in, r)
	}
}

func (p *play) deliver() {
	request := p.envoy.out[0]
	p.envoy.out = p.envoy.out[1:]
	p.note("receive %s: nonce %s error %v subscribe %v unsubscribe %v have %v",
		request.GetTypeUrl()[strings.LastIndex(request.GetTypeUrl(), ".")+1:], request.GetResponseNonce(),
		request.GetErrorDetail().GetMessage(), request.GetResourceNamesSubscribe(), request.GetResourceNamesUnsubscribe(),
		request.GetInitialResourceVersions())
	p.machine.Receive(p.now, request)
	p.send()
}

// step does one random thing.
func (p *play) step() {
	switch n := p.random.IntN(20); {
	case n < 8 && len(p.envoy.in) > 0:
		p.envoy.handle()
	case n < 16 && len(p.envoy.out) > 0:
		p.deliver()
	case n == 16:
		p.note("set")
		p.target = randomTarget(p.random, p.target)
		p.machine.Set(p.target)
		p.send()
	case n == 17:
		p.now = p.now.Add(time.Duration(p.random.IntN(4000)) * time.Millisecond)
		p.send()
	}
}

// finish lets all messages arrive and a quarter of an hour pass, in which what was refused by chance is retried.
func (p *play) finish() {
	end := p.now.Add(15 * time.Minute)
	for range 10_000 {
		switch wake := p.machine.Wake(); {
		case len(p.envoy.in) > 0:
			p.envoy.handle()
		case len(p.envoy.out) > 0:
			p.deliver()
		case wake.IsZero() || wake.After(end):
			return
		case !wake.After(p.now):
			p.Fatalf("to be woken at once would be a loop")
		default:
			p.now = wake
			p.send()
		}
	}
	p.Fatalf("it does not end:\n%s", strings.Join(p.log[len(p.log)-40:], "\n"))
}

// check compares Envoy with the target, but for what poison holds back.
func (p *play) check(seed uint64) {
	for _, kind := range []xds.Kind{xds.Cluster, xds.Listener, xds.VirtualHost} {
		for _, name := range p.target.Names(kind) {
			version := p.target.Get(kind, name).Version
			held := p.envoy.poison[kind.String()+name+version]
			if kind == xds.VirtualHost {
				for _, c := range p.target.Get(kind, name).Needs {
					held = held || p.envoy.poison[xds.Cluster.String()+c+p.target.Get(xds.Cluster, c).Version]
				}
			}
			if got := p.envoy.have[kind][name]; got != version && !held {
				p.Errorf("seed %d: %s %s is %q, want %q", seed, kind, name, got, version)
			}
		}
		for name := range p.envoy.have[kind] {
			if p.target.Get(kind, name) == nil && len(p.envoy.poison) == 0 {
				p.Errorf("seed %d: %s %s is still there", seed, kind, name)
			}
		}
	}
	for name, warming := range p.envoy.warming {
		// A stream that breaks between a changed cluster and its endpoints leaves the cluster to Envoy's own
		// time limit.
		if warming && !p.reconnects {
			p.Errorf("seed %d: cluster %s waits for endpoints", seed, name)
		}
	}
	for name, version := range p.envoy.have[xds.Endpoints] {
		if t := p.target.Get(xds.Endpoints, name); t != nil && t.Version != version {
			p.Errorf("seed %d: endpoints %s are %q, want %q", seed, name, version, t.Version)
		}
	}
	if !p.machine.settled(false) {
		p.Errorf("seed %d: the machine says that it is not settled", seed)
	}
	if p.Failed() {
		p.Fatalf("%s", strings.Join(p.log[max(0, len(p.log)-60):], "\n"))
	}
}

// TestMachine plays random changes, delays, refusals and reconnects. The fake Envoy complains at every message
// that could lose a request; at the end Envoy must have what it should.
func TestMachine(t *testing.T) {
	for _, c := range []struct {
		name                      string
		reconnects, flaky, poison bool
	}{
		{name: "changes"},
		{name: "reconnects", reconnects: true},
		{name: "flaky", flaky: true},
		{name: "poison", poison: true},
		{name: "all", reconnects: true, flaky: true, poison: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(400) {
				p := newPlay(t, seed)
				p.reconnects = c.reconnects
				p.envoy.flaky, p.envoy.lenient = c.flaky, c.flaky
				for i := range 6 {
					if c.poison {
						kind := []xds.Kind{xds.Cluster, xds.VirtualHost}[p.random.IntN(2)]
						name := map[xds.Kind]string{xds.Cluster: "c", xds.VirtualHost: "all/h"}[kind] + strconv.Itoa(i)
						if r := p.target.Get(kind, name); r != nil {
							p.envoy.poison[kind.String()+name+r.Version] = true
						}
					}
				}
				for range 150 {
					p.step()
					if c.reconnects && p.random.IntN(50) == 0 {
						p.reconnect()
					}
				}
				p.envoy.flaky = false
				p.finish()
				p.check(seed)
			}
		})
	}
}

// TestMachineReconnect wants an Envoy that has everything to be sent nothing.
func TestMachineReconnect(t *testing.T) {
	for seed := range uint64(50) {
		p := newPlay(t, seed)
		p.finish()
		p.envoy.sent = 0
		p.reconnect()
		p.finish()
		p.check(seed)
		if p.envoy.sent != 0 {
			t.Fatalf("seed %d: %d resources were sent again:\n%s", seed, p.envoy.sent, strings.Join(p.log, "\n"))
		}
	}
}

// TestMachineUnknownState wants an Envoy with anything from an earlier life to end with the target.
func TestMachineUnknownState(t *testing.T) {
	for seed := range uint64(200) {
		p := newPlay(t, seed)
		p.finish()
		for i := range 3 {
			p.envoy.have[xds.VirtualHost][fmt.Sprintf("all/old%d", i)] = "unknown"
			old := fmt.Sprintf("old%d", i)
			p.envoy.have[xds.Cluster][old], p.envoy.active[old] = "9:gone", true
		}
		p.envoy.names[xds.Endpoints]["gone"] = true
		p.target = randomTarget(p.random, p.target)
		p.reconnect()
		for range 60 {
			p.step()
		}
		p.finish()
		p.check(seed)
	}
}

// BenchmarkMachine is one change of one host of many, to its acknowledgment.
func BenchmarkMachine(b *testing.B) {
	const n = 10_000
	target := new(xds.Resources)
	put := func(kind xds.Kind, name, version string, needs ...string) {
		target.Put(&xds.Resource{Kind: kind, Name: name, Version: version, Needs: needs, Body: new(anypb.Any)})
	}
	for i := range n {
		name := fmt.Sprintf("shop/%d", i)
		put(xds.Endpoints, name, "1")
		put(xds.Cluster, name, "1", name)
		put(xds.VirtualHost, "all/"+name, "1", name)
	}
	now := time.Now()
	m := newMachine(time.Second)
	for _, kind := range xds.Kinds() {
		request := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kind.TypeURL()}
		if kind == xds.Endpoints {
			request.ResourceNamesSubscribe = target.Names(kind)
		}
		m.Receive(now, request)
	}
	m.Set(target)
	settle := func() (sent int) {
		for {
			now = now.Add(time.Second)
			responses := m.Send(now)
			m.progress()
			if len(responses) == 0 {
				return sent
			}
			for _, r := range responses {
				sent += len(r.Resources)
				m.Receive(now, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
			}
		}
	}
	settle()
	round := 1
	b.ReportAllocs()
	for b.Loop() {
		round++
		next := *target
		target = &next
		put(xds.VirtualHost, "all/shop/7", strconv.Itoa(round), "shop/7")
		m.Set(target)
		if sent := settle(); sent != 1 {
			b.Fatalf("%d resources were sent for one", sent)
		}
	}
}
