package members

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"slices"
	"time"
)

// A Table is what one node knows of the others. It has no clock and no socket: each call says what time it is.
// It is not safe for concurrent use.
type Table struct {
	self  string
	boot  uint64
	cfg   Config
	seq   uint64
	peers map[string]*peer

	lastTick time.Time
	// grace is the time before which nobody is declared dead, because this process itself was late.
	grace time.Time
}

// A peer is another node of the snapshot.
type peer struct {
	session   uint64 // the boot that is believed; 0 for none
	candidate uint64 // a boot that has yet to show that it heard us
	retired   []uint64
	sequence  uint64
	heard     time.Time // of the last believed heartbeat
	hold      time.Time // until when it counts as alive in silence
	alive     bool
	last      Heartbeat
}

// maxRetired bounds the boots of a peer that are remembered as over.
const maxRetired = 256

// Errors of Receive. They are counted, not logged one by one.
var (
	ErrUnknownNode = errors.New("heartbeat from a node that is not in the cluster")
	ErrReplay      = errors.New("heartbeat was seen before")
)

// NewTable makes a Table for the node self. boot is a random number.
func NewTable(self string, boot uint64, cfg Config) *Table {
	return &Table{self: self, boot: boot, cfg: cfg.withDefaults(), peers: map[string]*peer{}}
}

// SetPeers says which other nodes there are. What is known of those that stay is kept.
func (t *Table) SetPeers(names []string) {
	next := map[string]*peer{}
	for _, name := range names {
		if name == t.self {
			continue
		}
		if p := t.peers[name]; p != nil {
			next[name] = p
		} else {
			next[name] = &peer{}
		}
	}
	t.peers = next
}

// Receive takes a decoded heartbeat. reply asks for a heartbeat to the sender at once, so that a session starts
// without waiting for the next interval; changed says that the sender came to life or said something new.
func (t *Table) Receive(now time.Time, h Heartbeat) (reply, changed bool, err error) {
	p := t.peers[h.Node]
	if p == nil {
		return false, false, ErrUnknownNode
	}
	if h.Boot == 0 || slices.Contains(p.retired, h.Boot) {
		return false, false, ErrReplay
	}
	if h.Boot == p.session && h.Sequence <= p.sequence {
		return false, false, ErrReplay
	}
	if h.Heard[0] != t.boot && h.Heard[1] != t.boot {
		// It has not heard this process yet, or the message is older than this process.
		first := h.Boot != p.session && h.Boot != p.candidate
		if h.Boot != p.session {
			p.candidate = h.Boot
		}
		return first, false, nil
	}
	fresh := h.Boot != p.session
	if fresh {
		p.replaceSession(h.Boot)
	}
	changed = !p.alive || fresh || !sameState(p.last, h)
	p.sequence, p.heard, p.last = h.Sequence, now, h
	p.hold = time.Time{}
	if h.Hold > 0 {
		p.hold = now.Add(h.Hold)
	}
	p.alive = !h.Leaving
	return fresh, changed, nil
}

func (p *peer) replaceSession(boot uint64) {
	if p.session != 0 {
		p.retired = append(p.retired, p.session)
		p.retired = p.retired[max(0, len(p.retired)-maxRetired):]
	}
	p.session, p.candidate = boot, 0
}

// EndHold says that a node that asked to be waited for is gone: it is dead at the next Tick, if it stays silent.
func (t *Table) EndHold(name string) {
	if p := t.peers[name]; p != nil {
		p.hold = time.Time{}
	}
}

// sameState compares what two heartbeats say, apart from counters.
func sameState(a, b Heartbeat) bool {
	return a.Leaving == b.Leaving && (a.Hold > 0) == (b.Hold > 0) && slices.Equal(a.VIPs, b.VIPs) &&
		slices.EqualFunc(a.MACs, b.MACs, func(x, y net.HardwareAddr) bool { return string(x) == string(y) })
}

// Tick is to be called about every interval. It declares nodes dead and returns their names. If it is called so
// late that this process must have been starved, everybody gets a whole new window to be heard in: the silence
// was ours.
func (t *Table) Tick(now time.Time) (died []string) {
	if !t.lastTick.IsZero() && now.Sub(t.lastTick) > 3*t.cfg.Interval {
		t.grace = now.Add(t.cfg.DeadAfter)
	}
	t.lastTick = now
	if now.Before(t.grace) {
		return nil
	}
	for name, p := range t.peers {
		if p.alive && now.Sub(p.heard) >= t.cfg.DeadAfter && !now.Before(p.hold) {
			p.alive = false
			died = append(died, name)
		}
	}
	slices.Sort(died)
	return died
}

// Late reports whether this process was starved a moment ago.
func (t *Table) Late(now time.Time) bool { return now.Before(t.grace) }

// Alive lists the other nodes that live, sorted by name.
func (t *Table) Alive(now time.Time) []Member {
	var out []Member
	for name, p := range t.peers {
		if p.alive {
			out = append(out, Member{Name: name, MACs: p.last.MACs, VIPs: p.last.VIPs, Held: !p.hold.IsZero(), Age: now.Sub(p.heard)})
		}
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// HeardAll reports whether every other node has been heard since this Table was made.
func (t *Table) HeardAll() bool {
	for _, p := range t.peers {
		if p.session == 0 {
			return false
		}
	}
	return true
}

// Known lists the last words of all nodes that were ever heard, alive or not, by name.
func (t *Table) Known() map[string]Heartbeat {
	out := map[string]Heartbeat{}
	for name, p := range t.peers {
		if p.session != 0 {
			out[name] = p.last
		}
	}
	return out
}

// Peers lists the names of all other nodes, sorted.
func (t *Table) Peers() []string { return slices.Sorted(maps.Keys(t.peers)) }

// To fills in h what is particular to this process and to the receiver.
func (t *Table) To(name string, h Heartbeat) Heartbeat {
	t.seq++
	h.Node, h.Boot, h.Sequence = t.self, t.boot, t.seq
	if p := t.peers[name]; p != nil {
		h.Heard = [2]uint64{p.session, p.candidate}
	}
	return h
}
