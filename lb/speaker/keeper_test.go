package speaker

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
)

// A simulation is some nodes with real member tables and keepers on a LAN that loses messages. Its time is a number, so
// that minutes of it take milliseconds, and a seed repeats it.
type simulation struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	vips  []lb.VIP
	nodes []*simNode
	loss  float64
	parts map[string]int // nodes hear those with the same number
	boots uint64
	log   []string
}

type simNode struct {
	name    string
	up      bool
	healthy bool
	table   *members.Table
	keeper  *keeper
	say     members.Heartbeat
	owned   []netip.Addr
	asked   map[netip.Addr]time.Time // until when
	stored  map[netip.Addr]Stored    // its disk
	started time.Time
	listens bool
	frozen  time.Time // starved until
	// excluded is what lb.VIPs says of a node with the label, or one that is to be deleted.
	excluded bool
}

const (
	simStep = 50 * time.Millisecond
	// probesSettle is the time until the probes of a new process know something.
	probesSettle = 200 * time.Millisecond
)

func newSimulation(t *testing.T, seed uint64, nodes, vips int) *simulation {
	s := &simulation{t: t, rng: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1e9, 0), parts: map[string]int{}}
	for i := range vips {
		s.vips = append(s.vips, lb.VIP{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Local: true})
	}
	for i := range nodes {
		s.nodes = append(s.nodes, &simNode{name: fmt.Sprintf("n%d", i+1)})
	}
	for _, n := range s.nodes {
		n.healthy = true
		s.boot(n)
	}
	return s
}

func (s *simulation) boot(n *simNode) {
	s.boots++
	n.up, n.started, n.listens, n.owned, n.frozen = true, s.now, true, nil, time.Time{}
	n.table = members.NewTable(n.name, s.boots, members.Config{})
	var names []string
	for _, o := range s.nodes {
		names = append(names, o.name)
	}
	n.table.SetPeers(names)
	n.keeper = newKeeper(n.name, arp.Quick(), n.stored)
	n.asked = map[netip.Addr]time.Time{}
}

func (s *simulation) send(from, to *simNode) {
	h := from.table.To(to.name, from.say)
	if !to.up || s.parts[from.name] != s.parts[to.name] || s.rng.Float64() < s.loss {
		return
	}
	if reply, _, _ := to.table.Receive(s.now, h); reply {
		s.send(to, from)
	}
}

// run lets time pass.
func (s *simulation) run(d time.Duration) {
	for range d / simStep {
		s.now = s.now.Add(simStep)
		for i, n := range s.nodes {
			if !n.up || s.now.Before(n.frozen) {
				continue
			}
			s.step(n)
			if (s.now.UnixMilli()/simStep.Milliseconds()+int64(i))%3 == 0 {
				n.table.Tick(s.now)
				for _, o := range s.nodes {
					if o != n {
						s.send(n, o)
					}
				}
			}
		}
	}
}

// step does for a node what Speaker.step does.
func (s *simulation) step(n *simNode) {
	for a, until := range n.asked {
		if s.now.Before(until) {
			continue
		}
		delete(n.asked, a)
		e := arp.Event{Kind: arp.Free, Addr: a}
		for _, o := range s.nodes {
			if o != n && o.up && !s.now.Before(o.frozen) && s.parts[o.name] == s.parts[n.name] && slices.Contains(o.owned, a) {
				e = arp.Event{Kind: arp.Answered, Addr: a, MAC: o.name, Member: o.name}
			}
		}
		n.keeper.event(s.now, e)
	}
	settled := s.now.Sub(n.started) >= probesSettle
	if s.now.Sub(n.started) >= listenFor || n.table.HeardAll() && settled {
		n.listens = false
	}
	vips := slices.Clone(s.vips)
	for i := range vips {
		vips[i].Draining = n.excluded
	}
	out := n.keeper.step(s.now, input{
		vips: vips, members: n.table.Alive(s.now), known: n.table.Known(),
		healthy: func(netip.Addr) bool { return n.healthy && settled }, carrier: true, evidence: true,
		listening: n.listens, late: n.table.Late(s.now),
	})
	n.stored, n.owned = n.keeper.stored(), out.owned
	n.say.VIPs = out.say
	for _, a := range out.drop {
		delete(n.asked, a)
	}
	for a, q := range out.ask {
		n.asked[a] = s.now.Add(q.Wait)
	}
	for _, c := range out.changes {
		s.log = append(s.log, fmt.Sprintf("%s %s %+v", s.now.Format("05.000"), n.name, c))
	}
}

// owners lists who owns a VIP, among the nodes that are up.
func (s *simulation) owners(a netip.Addr) (names []string) {
	for _, n := range s.nodes {
		if n.up && slices.Contains(n.owned, a) {
			names = append(names, n.name)
		}
	}
	return names
}

// one checks that each VIP has exactly one owner, and returns who they are.
func (s *simulation) one(what string) string {
	s.t.Helper()
	var all []string
	for _, v := range s.vips {
		names := s.owners(v.Addr)
		if len(names) != 1 {
			s.t.Fatalf("%s: %s is owned by %v\n%s", what, v.Addr, names, strings.Join(s.log, "\n"))
		}
		all = append(all, names...)
	}
	return strings.Join(all, " ")
}

func (s *simulation) node(name string) *simNode {
	return s.nodes[slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.name == name })]
}

// TestChaos breaks everything at random, then lets it be quiet: two seconds later each VIP has exactly one owner, and it
// does not change any more.
func TestChaos(t *testing.T) {
	for seed := range uint64(60) {
		s := newSimulation(t, seed, 2+int(seed%4), 3)
		for range 20 {
			n := s.nodes[s.rng.IntN(len(s.nodes))]
			switch s.rng.IntN(7) {
			case 0:
				s.loss = s.rng.Float64() * 0.8
			case 1:
				s.parts[n.name] = s.rng.IntN(3)
			case 2:
				n.up = false
			case 3:
				if !n.up {
					s.boot(n)
				}
			case 4:
				n.healthy = !n.healthy
			case 5:
				n.frozen = s.now.Add(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
			case 6:
				clear(s.parts)
			}
			s.run(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
		}
		s.loss = 0
		clear(s.parts)
		for _, n := range s.nodes {
			n.healthy, n.frozen = true, time.Time{}
			if !n.up {
				s.boot(n)
			}
		}
		s.run(2 * time.Second)
		before := s.one(fmt.Sprintf("seed %d, 2 s after all is well", seed))
		s.run(5 * time.Second)
		if after := s.one(fmt.Sprintf("seed %d, later", seed)); after != before {
			t.Fatalf("seed %d: moved from %s to %s without a reason\n%s", seed, before, after, strings.Join(s.log, "\n"))
		}
	}
}

// TestPartition cuts the owner off: both sides serve; a second after the cut is healed there is one owner, the newer
// one.
func TestPartition(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		s := newSimulation(t, 1, nodes, 1)
		s.run(2 * time.Second)
		old := s.one("start")
		s.parts[old] = 1
		s.run(1200 * time.Millisecond)
		if names := s.owners(s.vips[0].Addr); len(names) != 2 {
			t.Fatalf("%d nodes, cut: owned by %v", nodes, names)
		}
		clear(s.parts)
		s.run(300 * time.Millisecond)
		if now := s.one("healed"); now == old {
			t.Errorf("%d nodes: the old owner %s took the VIP back", nodes, old)
		}
	}
}

// TestSticky kills the owner and brings it back: it takes nothing.
func TestSticky(t *testing.T) {
	s := newSimulation(t, 1, 3, 1)
	s.run(2 * time.Second)
	old := s.one("start")
	s.node(old).up = false
	s.run(1100 * time.Millisecond)
	next := s.one("killed")
	s.boot(s.node(old))
	for range 100 {
		s.run(simStep)
		if now := s.one("back"); now != next {
			t.Fatalf("the VIP went from %s to %s when %s came back", next, now, old)
		}
	}
}

// TestQuickRestart kills the owner, which is not the preferred one, and starts it before its silence is noticed: nothing
// moves.
func TestQuickRestart(t *testing.T) {
	s := newSimulation(t, 1, 3, 1)
	s.run(2 * time.Second)
	preferred := s.node(s.one("start"))
	preferred.up = false
	s.run(2 * time.Second)
	s.boot(preferred)
	s.run(2 * time.Second)
	owner := s.one("moved")
	s.log = nil
	s.node(owner).up = false
	s.run(300 * time.Millisecond)
	s.boot(s.node(owner))
	s.run(3 * time.Second)
	if now := s.one("restarted"); now != owner || len(s.log) != 1 {
		t.Errorf("owned by %s, before by %s\n%s", now, owner, strings.Join(s.log, "\n"))
	}
}

// TestDeadBackends kills the owner's backend, then all: with nobody to serve it the VIP stays where it is.
func TestDeadBackends(t *testing.T) {
	s := newSimulation(t, 1, 3, 1)
	s.run(2 * time.Second)
	old := s.one("start")
	s.node(old).healthy = false
	for range 20 {
		s.run(simStep)
		if len(s.owners(s.vips[0].Addr)) == 0 {
			t.Fatal("nobody owns the VIP in between")
		}
	}
	next := s.one("backend dead")
	if next == old {
		t.Fatal("the VIP stays at a dead backend")
	}
	for _, n := range s.nodes {
		n.healthy = false
	}
	s.run(3 * time.Second)
	if now := s.one("all dead"); now != next {
		t.Errorf("the VIP moved from %s to %s", next, now)
	}
}

// TestSilentOwner loses all heartbeats while the owner still answers ARP: nobody takes the VIP, and all
// say why.
func TestSilentOwner(t *testing.T) {
	s := newSimulation(t, 1, 2, 1)
	s.run(2 * time.Second)
	old := s.one("start")
	s.loss = 1
	s.run(3 * time.Second)
	if now := s.one("silent"); now != old {
		t.Errorf("the VIP moved to %s although %s answers for it", now, old)
	}
	for _, n := range s.nodes {
		if problems := n.keeper.problems(); n.name != old && (len(problems) != 1 || problems[0].Reason != ReasonOwnerAnswers) {
			t.Errorf("%s says %v", n.name, problems)
		}
	}
	s.loss = 0
	s.run(time.Second)
	for _, n := range s.nodes {
		if problems := n.keeper.problems(); len(problems) != 0 {
			t.Errorf("%s still says %v", n.name, problems)
		}
	}
}

// TestClaimDeleted takes the claim away and gives it back: the VIP is released, forgotten, and owned again.
func TestClaimDeleted(t *testing.T) {
	s := newSimulation(t, 1, 3, 1)
	s.run(2 * time.Second)
	s.one("start")
	vips := s.vips
	s.vips = nil
	s.run(time.Second)
	for _, n := range s.nodes {
		if len(n.owned)+len(n.keeper.vips)+len(n.stored) != 0 {
			t.Errorf("%s still knows %v", n.name, n.stored)
		}
	}
	s.vips = vips
	s.run(2 * time.Second)
	s.one("claimed again")
}

// TestForeign meets a host on the LAN that is no node and uses the VIP: before it is announced it is not announced, and
// asked about again later; afterwards it is kept and the host named.
func TestForeign(t *testing.T) {
	a := netip.MustParseAddr("203.0.113.1")
	k := newKeeper("n1", arp.Full(), nil)
	now := time.Unix(1e9, 0)
	in := input{vips: []lb.VIP{{Addr: a}}, carrier: true, evidence: true, healthy: func(netip.Addr) bool { return true }}
	out := k.step(now, in)
	if len(out.owned) != 0 || out.ask[a] != arp.Full() {
		t.Fatalf("owned %v, asked %v; want the whole question first", out.owned, out.ask)
	}
	k.event(now, arp.Event{Kind: arp.Answered, Addr: a, MAC: "02:00:00:00:00:09"})
	for _, after := range []time.Duration{0, time.Second, retryForeign - 1} {
		out = k.step(now.Add(after), in)
		if len(out.owned)+len(out.ask) != 0 || !out.say[0].Blocked {
			t.Fatalf("after %v: owned %v, asked %v, said %v", after, out.owned, out.ask, out.say)
		}
	}
	problems := k.problems()
	if len(problems) != 1 || problems[0].Reason != ReasonAddressConflict || !strings.Contains(problems[0].Message, "is not announced: the host with the MAC 02:00:00:00:00:09") {
		t.Fatalf("problems: %v", problems)
	}
	now = now.Add(retryForeign + 1)
	if out = k.step(now, in); out.ask[a] != arp.Full() {
		t.Fatalf("it is not asked again: %v", out.ask)
	}
	k.event(now, arp.Event{Kind: arp.Free, Addr: a})
	if out = k.step(now, in); len(out.owned) != 1 || len(k.problems()) != 0 {
		t.Fatalf("owned %v, problems %v", out.owned, k.problems())
	}
	k.event(now, arp.Event{Kind: arp.Conflict, Addr: a, MAC: "02:00:00:00:00:09"})
	out = k.step(now, in)
	if problems := k.problems(); len(out.owned) != 1 || len(problems) != 1 || !strings.Contains(problems[0].Message, "contested") {
		t.Errorf("a forged frame: owned %v, problems %v", out.owned, problems)
	}
	now = now.Add(rememberConflict + 1)
	if k.step(now, in); len(k.problems()) != 0 {
		t.Errorf("the conflict is over: %v", k.problems())
	}
}

// TestLastWord has a second owner after a healed partition: the one that stays announces again when the other is gone.
func TestLastWord(t *testing.T) {
	a := netip.MustParseAddr("203.0.113.1")
	k := newKeeper("n1", arp.Full(), map[netip.Addr]Stored{a: {Generation: 5, Owned: true}})
	now := time.Unix(1e9, 0)
	rival := members.Member{Name: "n2", VIPs: []members.VIP{{Addr: a, Generation: 4, Owned: true, Healthy: true}}}
	in := input{vips: []lb.VIP{{Addr: a}}, carrier: true, evidence: true, healthy: func(netip.Addr) bool { return true }}
	k.holding(a).owned, k.holding(a).claimed = true, false
	in.members = []members.Member{rival}
	if out := k.step(now, in); len(out.owned) != 1 || len(out.announce) != 0 {
		t.Fatalf("owned %v, announced %v", out.owned, out.announce)
	}
	rival.VIPs[0].Owned = false
	if out := k.step(now, in); !slices.Contains(out.announce, a) {
		t.Error("the last word is the loser's")
	}
	if out := k.step(now, in); len(out.announce) != 0 {
		t.Error("it is said again and again")
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	if got, err := load(dir); len(got) != 0 || err != nil {
		t.Errorf("an empty folder: %v, %v", got, err)
	}
	want := map[netip.Addr]Stored{netip.MustParseAddr("203.0.113.1"): {Generation: 7, Owned: true}}
	for range 2 {
		if err := save(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := load(dir); err != nil || len(got) != 1 || got[netip.MustParseAddr("203.0.113.1")] != want[netip.MustParseAddr("203.0.113.1")] {
		t.Errorf("got %v, %v", got, err)
	}
}
