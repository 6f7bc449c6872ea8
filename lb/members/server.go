package members

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hythe.dev/hythe/internal/run"
)

// Options are what a Server needs.
type Options struct {
	Node string
	// Port is the UDP port here and on all other nodes; 0 means DefaultPort.
	Port uint16
	// Keys returns the keys; it is called for each message, so that they can be replaced.
	Keys   func() Keys
	Config Config
	Log    *slog.Logger
}

// A Server sends and receives heartbeats. What it says is set by Say, whom it says it to by SetPeers.
type Server struct {
	opts    Options
	cfg     Config
	changed chan struct{}
	wake    chan struct{}

	mu       sync.Mutex
	table    *Table
	addrs    map[string]netip.Addr
	say      Heartbeat
	said     bool              // Say was called: before that nothing is sent, for it would be wrong
	received map[string]uint64 // messages by outcome, for metrics
}

// NewServer makes a Server; Run starts it.
func NewServer(opts Options) *Server {
	if opts.Port == 0 {
		opts.Port = DefaultPort
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails, see crypto/rand
	boot := binary.BigEndian.Uint64(seed[:]) | 1
	return &Server{
		opts: opts, cfg: opts.Config.withDefaults(),
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		table: NewTable(opts.Node, boot, opts.Config), addrs: map[string]netip.Addr{}, received: map[string]uint64{},
	}
}

// Changed is readable after a node came, went or said something new.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// SetPeers says which other nodes there are, and under which address.
func (s *Server) SetPeers(addrs map[string]netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = addrs
	s.table.SetPeers(slices.Collect(maps.Keys(addrs)))
}

// Say sets what is sent from now on. Where it is news it is sent at once.
func (s *Server) Say(h Heartbeat) {
	s.mu.Lock()
	news := !s.said || !sameState(s.say, h)
	s.say, s.said = h, true
	s.mu.Unlock()
	if news {
		run.Wake(s.wake)
	}
}

// Alive lists the other nodes that live.
func (s *Server) Alive() []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Alive(time.Now())
}

// EndHold says that a node that asked to be waited for is gone; see Table.EndHold.
func (s *Server) EndHold(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.EndHold(name)
}

// Known lists the last words of all nodes that were ever heard, alive or not, by name.
func (s *Server) Known() map[string]Heartbeat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Known()
}

// HeardAll reports whether every other node has been heard since this process started.
func (s *Server) HeardAll() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.HeardAll()
}

// Late reports whether this process was starved a moment ago: then nothing should be decided on silence.
func (s *Server) Late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Late(time.Now())
}

// Received counts messages by outcome: "ok", "auth", "malformed", "replay", "unknown".
func (s *Server) Received() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.received)
}

// Run sends and receives until ctx is done. Before it returns it says its last words (see Say) once more.
func (s *Server) Run(ctx context.Context) error {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(s.opts.Port)})
	if err != nil {
		return fmt.Errorf("listen for heartbeats: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.receive(conn)
	}()
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			// Three times, since nobody repeats them later when they are lost.
			for range 3 {
				s.sendAll(conn)
				time.Sleep(5 * time.Millisecond)
			}
			err := conn.Close()
			<-done
			return err
		case <-ticker.C:
			s.mu.Lock()
			died := s.table.Tick(time.Now())
			s.mu.Unlock()
			for _, name := range died {
				s.opts.Log.Info("node is silent", "node", name, "after", s.cfg.DeadAfter)
			}
			if len(died) > 0 {
				run.Wake(s.changed)
			}
		case <-s.wake:
		}
		s.sendAll(conn)
	}
}

func (s *Server) sendAll(conn *net.UDPConn) {
	s.mu.Lock()
	names := s.table.Peers()
	s.mu.Unlock()
	for _, name := range names {
		s.send(conn, name)
	}
}

// send sends one heartbeat. A failure is what a cut cable looks like; the receiver will notice.
func (s *Server) send(conn *net.UDPConn, name string) {
	s.mu.Lock()
	h := s.table.To(name, s.say)
	addr, said := s.addrs[name], s.said
	s.mu.Unlock()
	if !addr.IsValid() || !said {
		return
	}
	data, err := s.opts.Keys().Encode(h)
	if err != nil {
		s.opts.Log.Error("cannot send heartbeat", "error", err)
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(s.cfg.Interval))
	if _, err := conn.WriteToUDPAddrPort(data, netip.AddrPortFrom(addr, s.opts.Port)); err != nil {
		s.opts.Log.Debug("cannot send heartbeat", "node", name, "error", err)
	}
}

func (s *Server) receive(conn *net.UDPConn) {
	buf := make([]byte, maxBytes)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// An ICMP error of an earlier send, for example. It must neither end nor spin the loop.
			time.Sleep(time.Millisecond)
			continue
		}
		s.handle(conn, buf[:n])
	}
}

func (s *Server) handle(conn *net.UDPConn, data []byte) {
	h, err := s.opts.Keys().Decode(data)
	s.mu.Lock()
	var reply, changed bool
	if err == nil {
		reply, changed, err = s.table.Receive(time.Now(), h)
	}
	s.received[outcome(err)]++
	s.mu.Unlock()
	if reply {
		s.send(conn, h.Node)
	}
	if changed {
		run.Wake(s.changed)
	}
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errAuth):
		return "auth"
	case errors.Is(err, ErrReplay):
		return "replay"
	case errors.Is(err, ErrUnknownNode):
		return "unknown"
	}
	return "malformed"
}
