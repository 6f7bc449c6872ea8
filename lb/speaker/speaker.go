package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
	"hythe.dev/hythe/lb/probe"
)

const (
	// listenFor is how long a new process listens at most before it takes or resumes a VIP.
	listenFor = time.Second
	// releaseFor is how long a process that ends with Options.Release waits for others to take its VIPs.
	releaseFor = 3 * time.Second
	// DefaultHold is how long others wait for a process that restarts.
	DefaultHold = 10 * time.Second
)

// Options are what a Speaker needs. Node, Data, Keys and Log must be set.
type Options struct {
	Node string
	// Interface announces the VIPs; by default it is the one that has the node's first IPv4 InternalIP.
	Interface string
	// Data is the folder for vips.json. It exists.
	Data string
	// Keys returns the keys of heartbeats, see members.ReadKeys.
	Keys func() members.Keys
	// Port of heartbeats, 0 for members.DefaultPort.
	Port    uint16
	Members members.Config
	Probe   probe.Options
	// Hold is how long others wait for this node after Run has ended; 0 means DefaultHold.
	Hold time.Duration
	// Release makes Run give the VIPs to others when it ends, instead of asking them to wait.
	Release bool
	// FirstProbe is the question about an address that no node ever owned; zero means arp.Full.
	FirstProbe arp.Question
	// Registry takes the metrics, and Panics what was caught; nil for none.
	Registry prometheus.Registerer
	Panics   *run.Panics
	Log      *slog.Logger
}

// A Speaker owns and announces VIPs on one node.
type Speaker struct {
	opts    Options
	latest  *run.Latest[*model.Snapshot]
	members *members.Server
	prober  *probe.Prober

	mu        sync.Mutex // guards all below
	arp       *arp.Announcer
	keeper    *keeper
	nodes     map[string]*model.Node // of the last snapshot; nil before the first
	vips      []lb.VIP
	known     []model.Problem // about the snapshot
	failed    map[string]error
	asked     time.Time // when neighbours were asked for a sign of life
	vigil     vigil
	askedHeld time.Time // when nodes were asked that are waited for
	wrote     time.Time // when what is owned could not be written; zero if it is written
	listening bool
	draining  bool
	takeovers map[string]uint64
	releases  map[string]uint64
	since     map[netip.Addr]time.Time // when VIPs were taken
}

// New makes a Speaker and reads what this node owned before.
func New(opts Options) (*Speaker, error) {
	if opts.Hold == 0 {
		opts.Hold = DefaultHold
	}
	if opts.FirstProbe.Count == 0 {
		opts.FirstProbe = arp.Full()
	}
	stored, err := load(opts.Data)
	if err != nil {
		// The others know the generations; starting anew is better than not at all.
		opts.Log.Error("starting without the VIPs owned before", "error", err)
	}
	s := &Speaker{
		opts: opts, latest: run.NewLatest[*model.Snapshot](), prober: probe.New(opts.Probe),
		members: members.NewServer(members.Options{Node: opts.Node, Port: opts.Port, Keys: opts.Keys, Config: opts.Members, Log: opts.Log}),
		keeper:  newKeeper(opts.Node, opts.FirstProbe, stored),
		failed:  map[string]error{}, takeovers: map[string]uint64{}, releases: map[string]uint64{}, listening: true,
		since: map[netip.Addr]time.Time{},
	}
	if opts.Registry != nil {
		if err := opts.Registry.Register(collector{s}); err != nil {
			return nil, fmt.Errorf("register metrics of VIPs: %w", err)
		}
	}
	return s, nil
}

// SetSnapshot sets what the cluster wants. It never blocks.
func (s *Speaker) SetSnapshot(snapshot *model.Snapshot) { s.latest.Put(snapshot) }

// Owned lists the VIPs that this node owns, sorted.
func (s *Speaker) Owned() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned()
}

func (s *Speaker) owned() []netip.Addr {
	var out []netip.Addr
	for _, v := range s.vips {
		if h := s.keeper.vips[v.Addr]; h != nil && h.owned {
			out = append(out, v.Addr)
		}
	}
	return out
}

// Settled says whether this node has heard the others and decided about the VIPs that it had before it was restarted.
func (s *Speaker) Settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.listening && s.keeper.settled()
}

// Problems lists what stands in the way of VIPs on this node.
func (s *Speaker) Problems() []model.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := append(s.keeper.problems(), s.known...)
	for what, err := range s.failed {
		out = append(out, model.Problemf(model.ObjectRef{Kind: "Node", Name: s.opts.Node}, "VIPsNotAnnounced", "Cannot %s: %v.", what, err))
	}
	return model.SortProblems(out)
}

// Drain makes this node give up its VIPs to others that can serve them, or stop doing so.
func (s *Speaker) Drain(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = on
}

// Run owns and announces until ctx is done, or the node's address is on another interface. It begins when a snapshot is set that has this node, and the interface for
// VIPs is known.
func (s *Speaker) Run(ctx context.Context) error {
	name, ok := s.begin(ctx)
	if !ok {
		return nil
	}
	s.mu.Lock()
	s.arp = arp.New(name, s.opts.Log)
	s.mu.Unlock()
	s.watch()

	// The parts outlive ctx by the last words.
	partsCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 3)
	for _, part := range []func(context.Context) error{s.arp.Run, s.members.Run, s.prober.Run} {
		go func() { ended <- part(partsCtx) }()
	}
	left, err := s.loop(ctx, name, ended)
	if ctx.Err() != nil {
		s.end()
	}
	stop()
	for range left {
		err = errors.Join(err, <-ended)
	}
	return err
}

// begin waits for the first snapshot that is enough to begin with; false means that ctx is done.
func (s *Speaker) begin(ctx context.Context) (name string, ok bool) {
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", false
		case <-s.latest.Ready():
			s.takeSnapshot()
		case <-retry.C:
		}
		if s.nodes == nil {
			continue
		}
		name, err := s.interfaceName()
		s.fail("find the interface for VIPs", err)
		if err == nil {
			return name, true
		}
	}
}

// loop steps until ctx is done, a part ended, or the node's address left the interface; left is the number of parts that
// still run.
func (s *Speaker) loop(ctx context.Context, on string, ended <-chan error) (left int, err error) {
	interval := s.opts.Members.Interval
	if interval <= 0 {
		interval = members.DefaultInterval
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	slow := time.NewTicker(2 * time.Second)
	defer slow.Stop()
	started := time.Now()
	for {
		select {
		case <-ctx.Done():
			return 3, nil
		case err := <-ended:
			return 2, err
		case <-s.latest.Ready():
			s.takeSnapshot()
			s.watch()
		case <-slow.C:
			s.watch() // the router may have changed
			if name, err := s.interfaceName(); err == nil && name != on {
				return 3, fmt.Errorf("announce VIPs on %s: the address of node %s is on %s now, this agent has to start anew", on, s.opts.Node, name)
			}
		case <-s.arp.Changed():
		case <-s.members.Changed():
		case <-s.prober.Changed():
		case <-ticker.C:
		}
		if s.listening && (time.Since(started) >= listenFor || s.members.HeardAll() && s.prober.Settled()) {
			s.mu.Lock()
			s.listening = false
			s.mu.Unlock()
		}
		s.step(members.Heartbeat{})
	}
}

// takeSnapshot uses the newest snapshot. After a panic the one before stays in use.
func (s *Speaker) takeSnapshot() {
	snapshot, ok := s.latest.Take()
	if !ok {
		return
	}
	fault := contain.Call(func() error {
		s.use(snapshot)
		return nil
	})
	s.fail("use the newest state of the cluster", s.opts.Panics.Err("lb", fault))
}

// use derives from a snapshot what the parts need.
func (s *Speaker) use(snapshot *model.Snapshot) {
	vips, problems := lb.VIPs(snapshot, s.opts.Node)
	s.opts.Panics.Problems("lb", problems)
	peers := map[string]netip.Addr{}
	for name, n := range snapshot.Nodes {
		if name == s.opts.Node {
			continue
		}
		if a := n.Address(false); a.IsValid() {
			peers[name] = a
		} else if a := n.Address(true); a.IsValid() {
			peers[name] = a
		}
	}
	s.members.SetPeers(peers)
	probes := map[netip.Addr][]lb.Probe{}
	for _, v := range vips {
		probes[v.Addr] = v.Probes
	}
	s.prober.Set(probes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes, s.vips, s.known = snapshot.Nodes, vips, problems
}

// interfaceName is the interface of the options, or that of the node's address.
func (s *Speaker) interfaceName() (string, error) {
	if s.opts.Interface != "" {
		return s.opts.Interface, nil
	}
	n := s.nodes[s.opts.Node]
	if n == nil || !n.Address(false).IsValid() {
		return "", fmt.Errorf("node %s has no IPv4 InternalIP; name the interface", s.opts.Node)
	}
	return interfaceOf(n.Address(false))
}

// watch tells the responder which addresses matter.
func (s *Speaker) watch() {
	var vips []netip.Addr
	for _, v := range s.vips {
		vips = append(vips, v.Addr)
	}
	neighbours := routers(s.arp.Link().Index)
	for name, n := range s.nodes {
		if a := n.Address(false); name != s.opts.Node && a.IsValid() {
			neighbours = append(neighbours, a)
		}
	}
	s.fail("filter ARP", s.arp.Watch(vips, neighbours))
}

// fail notes what cannot be done, or that it can be done again.
func (s *Speaker) fail(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failed, what)
		return
	}
	if s.failed[what] == nil {
		s.opts.Log.Error("cannot "+what, "error", err)
	}
	s.failed[what] = err
}

// step decides and does. words are what to say besides.
func (s *Speaker) step(words members.Heartbeat) {
	now := time.Now()
	link := s.arp.Link()
	if !link.Read {
		return // nothing is said before it is known what can be said
	}
	alive := s.members.Alive()
	macs := map[string][]net.HardwareAddr{}
	known := s.members.Known()
	for name, h := range known {
		macs[name] = h.MACs
	}
	s.arp.SetMembers(macs)
	s.endHolds(now, alive, link.Up)
	in := input{
		members: alive, known: known, healthy: s.prober.Healthy, carrier: link.Up,
		evidence: s.evidence(now, alive), late: s.members.Late(),
	}
	s.mu.Lock()
	in.vips, in.listening, in.draining = s.vips, s.listening, s.draining
	linkChanged := false
	for _, e := range s.arp.Events() {
		linkChanged = linkChanged || e.Kind == arp.LinkChanged
		s.keeper.event(now, e)
	}
	out := s.keeper.step(now, in)
	stored := s.keeper.stored()
	s.mu.Unlock()
	if linkChanged {
		s.watch() // its routers are known only now
	}
	s.do(out, stored)
	words.MACs = []net.HardwareAddr{}
	if len(link.MAC) == 6 {
		words.MACs = append(words.MACs, link.MAC)
	}
	words.VIPs = out.say
	s.members.Say(words)
}

// do carries out a step.
func (s *Speaker) do(out output, stored map[netip.Addr]Stored) {
	s.write(time.Now(), len(out.changes) > 0 || out.forgot, stored)
	s.arp.Set(out.owned)
	for _, c := range out.changes {
		s.count(c)
	}
	for _, a := range out.drop {
		s.arp.Drop(a)
	}
	for a, q := range out.ask {
		s.arp.Ask(a, q)
	}
	for _, a := range out.announce {
		s.arp.Announce(a)
	}
}

// writeAgain is the time between attempts to write what could not be written.
const writeAgain = time.Second

// write writes down what is owned, when that changed and as long as it could not be written. A disk that is full stops
// no VIP: what is not written down costs a takeover after the next restart.
func (s *Speaker) write(now time.Time, changed bool, stored map[netip.Addr]Stored) {
	if !changed && (s.wrote.IsZero() || now.Sub(s.wrote) < writeAgain) {
		return
	}
	err := save(s.opts.Data, stored)
	s.wrote = time.Time{}
	if err != nil {
		s.wrote = now
		err = fmt.Errorf("%w. Make room there: a restart of the agent may move VIPs until then", err)
	}
	s.fail("write owned VIPs", err)
}

func (s *Speaker) count(c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.taken {
		s.takeovers[c.reason]++
		s.since[c.vip] = time.Now()
		s.opts.Log.Info("VIP taken", "vip", c.vip, "generation", c.generation, "reason", c.reason)
	} else {
		s.releases[c.reason]++
		delete(s.since, c.vip)
		s.opts.Log.Info("VIP released", "vip", c.vip, "generation", c.generation, "reason", c.reason)
	}
}

// evidence reports whether the LAN gave a sign of life a moment ago, and asks for one where heartbeats do not
// suffice. A cluster of one node needs none.
func (s *Speaker) evidence(now time.Time, alive []members.Member) bool {
	if len(s.nodes) < 2 {
		return true
	}
	interval := s.opts.Members.Interval
	if interval <= 0 {
		interval = members.DefaultInterval
	}
	for _, m := range alive {
		if !m.Held && m.Age <= 3*interval {
			return true
		}
	}
	// Steps may come often, and each question is a broadcast to every neighbour.
	if now.Sub(s.asked) >= interval {
		s.asked = now
		s.arp.AskNeighbours()
	}
	return now.Sub(s.arp.Alive()) <= 4*interval
}

// endHolds asks the kernels of nodes that asked to be waited for whether they are there, and stops waiting for those
// that fell silent.
func (s *Speaker) endHolds(now time.Time, alive []members.Member, carrier bool) {
	if !slices.ContainsFunc(alive, func(m members.Member) bool { return m.Held }) {
		s.mu.Lock()
		s.vigil = vigil{}
		s.mu.Unlock()
		return
	}
	if now.Sub(s.askedHeld) >= members.DefaultInterval {
		s.askedHeld = now
		for _, m := range alive {
			if m.Held {
				s.arp.AskNeighbour(s.addressOf(m.Name))
			}
		}
	}
	heard := func(name string) time.Time { return s.arp.Heard(s.addressOf(name)) }
	sure := carrier && s.evidence(now, alive) && !s.members.Late()
	s.mu.Lock()
	gone := s.vigil.step(now, alive, heard, sure)
	s.mu.Unlock()
	for _, name := range gone {
		s.opts.Log.Info("node is gone, and not waited for", "node", name)
		s.members.EndHold(name)
	}
}

// addressOf is the address by which a node is asked for by ARP, the zero Addr if it has none.
func (s *Speaker) addressOf(node string) netip.Addr {
	if n := s.nodes[node]; n != nil {
		return n.Address(false)
	}
	return netip.Addr{}
}

// end says the last words: either wait for me, or take my VIPs.
func (s *Speaker) end() {
	if !s.opts.Release {
		s.step(members.Heartbeat{Hold: s.opts.Hold})
		return
	}
	s.Drain(true)
	deadline := time.Now().Add(releaseFor)
	for time.Now().Before(deadline) {
		s.step(members.Heartbeat{})
		if len(s.Owned()) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.arp.Set(nil)
	s.members.Say(members.Heartbeat{Leaving: true})
}
