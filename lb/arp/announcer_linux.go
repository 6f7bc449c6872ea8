package arp

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

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/run"
)

// An Announcer owns VIPs on one interface. All methods may be called at any time, also before Run.
type Announcer struct {
	name    string
	log     *slog.Logger
	wake    chan struct{}
	changed chan struct{}

	mu     sync.Mutex
	table  *table
	link   Link
	conn   *packet.Conn
	watch  []netip.Addr
	events []Event
}

// New makes an Announcer for the interface of this name, which need not exist yet.
func New(name string, log *slog.Logger) *Announcer {
	return &Announcer{
		name: name, log: log, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		table: newTable(), link: Link{Name: name},
	}
}

// Set makes owned the addresses that this node answers for; new ones are announced at once.
func (a *Announcer) Set(owned []netip.Addr) {
	a.mu.Lock()
	a.table.look(time.Now())
	a.table.set(time.Now(), owned)
	a.mu.Unlock()
	run.Wake(a.wake)
}

// Announce starts the announcements of an owned address anew, because somebody else announced it.
func (a *Announcer) Announce(addr netip.Addr) {
	a.mu.Lock()
	a.table.again(time.Now(), addr)
	a.mu.Unlock()
	run.Wake(a.wake)
}

// Ask finds out whether somebody uses addr. A Free or an Answered event follows, unless the link goes down or
// the question is dropped.
func (a *Announcer) Ask(addr netip.Addr, q Question) {
	a.mu.Lock()
	a.table.ask(time.Now(), addr, q)
	a.mu.Unlock()
	run.Wake(a.wake)
}

// Drop forgets the question about addr.
func (a *Announcer) Drop(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.table.asked, addr)
}

// Watch sets the addresses that the kernel's filter passes: VIPs, owned or not, and neighbours, whose answers
// are signs of life of the LAN. Addresses other than IPv4 are skipped.
func (a *Announcer) Watch(vips, neighbours []netip.Addr) error {
	var watch []netip.Addr
	known := map[netip.Addr]bool{}
	for _, n := range neighbours {
		if n.Is4() {
			known[n] = true
			watch = append(watch, n)
		}
	}
	for _, v := range vips {
		if v.Is4() {
			watch = append(watch, v)
		}
	}
	slices.SortFunc(watch, netip.Addr.Compare)
	watch = slices.Compact(watch)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table.watch(known)
	if slices.Equal(watch, a.watch) {
		return nil
	}
	a.watch = watch
	if a.conn == nil {
		return nil
	}
	prog, err := bpf.Assemble(filter(watch, true))
	if err != nil {
		return fmt.Errorf("assemble ARP filter: %w", err)
	}
	if err := a.conn.SetBPF(prog); err != nil {
		return fmt.Errorf("set ARP filter: %w", err)
	}
	return nil
}

// SetMembers says which MACs are those of other nodes.
func (a *Announcer) SetMembers(macs map[string][]net.HardwareAddr) {
	members := map[mac]string{}
	for name, list := range macs {
		for _, hw := range list {
			members[macOf(hw)] = name
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.table.members = members
}

// AskNeighbours sends one ARP request to each watched neighbour; see Alive.
func (a *Announcer) AskNeighbours() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range sorted(a.table.neighbours) {
		a.send([]message{probe(a.table.self, n)})
	}
}

// AskNeighbour sends one ARP request to a watched neighbour; see Heard.
func (a *Announcer) AskNeighbour(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.table.neighbours[addr]; ok {
		a.send([]message{probe(a.table.self, addr)})
	}
}

// Heard returns when a watched neighbour was heard last; zero for never.
func (a *Announcer) Heard(addr netip.Addr) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.table.neighbours[addr]
}

// Alive returns when a neighbour was heard last.
func (a *Announcer) Alive() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.table.alive
}

// Link returns the state of the interface.
func (a *Announcer) Link() Link {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.link
}

// Counters returns what was counted.
func (a *Announcer) Counters() Counters {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.table.counters
}

// Changed is readable when there may be Events.
func (a *Announcer) Changed() <-chan struct{} { return a.changed }

// Events returns what was learned since the last call.
func (a *Announcer) Events() []Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	events := a.events
	a.events = nil
	return events
}

// maxEvents bounds the events that wait: somebody floods the LAN with claims, and the last ones say it all.
const maxEvents = 1024

func (a *Announcer) learn(events []Event) {
	if len(events) == 0 {
		return
	}
	a.events = append(a.events, events...)
	a.events = a.events[max(0, len(a.events)-maxEvents):]
	run.Wake(a.changed)
}

// Run answers and announces until ctx is done. A missing interface is waited for.
func (a *Announcer) Run(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	updates := make(chan netlink.LinkUpdate, 64)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return fmt.Errorf("listen for link changes: %w", err)
	}
	defer a.close()
	// Link events can be lost, so the link is read now and then as well.
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	a.readLink()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-updates:
			if !ok {
				updates = nil // the subscription ended; polling goes on
			}
			a.readLink()
		case <-poll.C:
			a.readLink()
		case <-a.wake:
		case <-timer.C:
		}
		timer.Reset(min(a.step(), pausedAfter/3)) // look must see a pause, not a rest
	}
}

// step sends what is due and returns how long nothing else will be.
func (a *Announcer) step() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil || !a.link.Up {
		return time.Second
	}
	a.table.look(time.Now())
	send, events, next := a.table.due(time.Now())
	a.send(send)
	a.learn(events)
	return time.Until(next)
}

// send sends messages. Errors are those of a link that just went away, which is handled as such.
func (a *Announcer) send(messages []message) {
	if a.conn == nil {
		return
	}
	for _, m := range messages {
		frame, err := m.encode()
		if err == nil {
			_, err = a.conn.WriteTo(frame, &packet.Addr{HardwareAddr: m.dst[:]})
		}
		if err != nil {
			a.log.Debug("cannot send ARP", "interface", a.name, "error", err)
		}
	}
}

// readLink brings the Announcer in line with the interface as it is now.
func (a *Announcer) readLink() {
	now := Link{Name: a.name, Read: true}
	if l, err := netlink.LinkByName(a.name); err == nil {
		at := l.Attrs()
		now.Index, now.MAC = at.Index, at.HardwareAddr
		const up = unix.IFF_UP | unix.IFF_RUNNING
		now.Up = at.RawFlags&up == up && len(at.HardwareAddr) == len(mac{})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.link
	if a.conn != nil && old.Read && old.Index == now.Index && old.Up == now.Up && slices.Equal(old.MAC, now.MAC) {
		return
	}
	a.link = now
	a.table.self = macOf(now.MAC)
	if old.Index != now.Index || a.conn == nil {
		a.reopen()
	}
	if now.Up && (!old.Up || !slices.Equal(old.MAC, now.MAC)) {
		for addr := range a.table.owned {
			a.table.again(time.Now(), addr)
		}
	}
	if old.Up != now.Up || old.Index != now.Index || !slices.Equal(old.MAC, now.MAC) {
		a.log.Info("link changed", "interface", a.name, "up", now.Up, "mac", now.MAC.String())
		a.learn([]Event{{Kind: LinkChanged}})
	}
}

// reopen replaces the socket by one on the interface as it is now.
func (a *Announcer) reopen() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
	if a.link.Index == 0 || len(a.link.MAC) != len(mac{}) {
		return
	}
	prog, err := bpf.Assemble(filter(a.watch, true))
	if err == nil {
		ifi := &net.Interface{Index: a.link.Index, Name: a.name, HardwareAddr: a.link.MAC}
		a.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: prog})
	}
	if err != nil {
		a.conn = nil
		a.log.Error("cannot open ARP socket", "interface", a.name, "error", err)
		return
	}
	go a.read(a.conn)
}

func (a *Announcer) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}

// read handles frames until the socket is closed.
func (a *Announcer) read(conn *packet.Conn) {
	buf := make([]byte, 256)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EBADF) {
			return
		}
		if err != nil {
			// The link is down, for example. The next link event tells; until then neither end nor spin.
			time.Sleep(20 * time.Millisecond)
			a.mu.Lock()
			stale := a.conn != conn
			a.mu.Unlock()
			if stale {
				return
			}
			continue
		}
		a.receive(conn, buf[:n])
	}
}

func (a *Announcer) receive(conn *packet.Conn, frame []byte) {
	m, err := parse(frame)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.table.counters.Malformed++
		return
	}
	if a.conn != conn || !a.link.Up {
		return
	}
	a.table.look(time.Now())
	send, events := a.table.handle(time.Now(), m)
	a.send(send)
	a.learn(events)
}
