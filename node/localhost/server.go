package localhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/proxy"
)

const (
	// maxCarried is how many connections and UDP flows are carried at once. A connection takes two sockets, a flow one.
	maxCarried = 2000
	// dialTimeout is how long an endpoint may take to accept.
	dialTimeout = 10 * time.Second
	// retryEvery is how often a port is tried that another process has.
	retryEvery = 5 * time.Second
)

// A Server listens.
type Server struct {
	log     *slog.Logger
	netns   int
	wake    chan struct{}
	buffers buffers

	mu      sync.Mutex  // guards what follows
	base    proxy.State // see baseOf
	wanted  State
	sticky  map[Listener]netip.AddrPort // what was chosen of wanted, where all clients come to one endpoint
	failed  map[Listener]failure
	carried map[*carriage]struct{}
}

type failure struct {
	err   error
	owner model.Key
}

// A carriage is a connection, or a UDP flow, and its endpoint.
type carriage struct {
	listener Listener
	endpoint netip.AddrPort
	owner    model.Key
	reset    bool         // the Service wanted it when it was last there
	used     atomic.Int64 // when a UDP flow had its last datagram, in nanoseconds since 1970
	end      func()       // makes its goroutines end
}

// An Option changes how a Server is made.
type Option func(*Server)

// InNetNS works in the network namespace of the file descriptor fd, in place of the process' own.
func InNetNS(fd int) Option { return func(s *Server) { s.netns = fd } }

// New makes a Server, which listens to nothing yet.
func New(log *slog.Logger, options ...Option) *Server {
	s := &Server{log: log, wake: make(chan struct{}, 1), failed: map[Listener]failure{}, carried: map[*carriage]struct{}{}}
	for _, o := range options {
		o(s)
	}
	return s
}

// Set says what the datapath holds. Connections to endpoints that are gone end if their Service wants it, UDP flows always.
func (s *Server) Set(state proxy.State) {
	s.mu.Lock()
	s.base = baseOf(state)
	s.mu.Unlock()
	s.apply(Build(state))
	s.endGone(state, func(model.Key) bool { return true })
}

// Update says what changed since the last Set or Update.
func (s *Server) Update(c proxy.Change) {
	s.mu.Lock()
	next, changed := update(s.wanted, s.base, c)
	s.mu.Unlock()
	if changed {
		s.apply(next)
	}
	services := map[model.Key]struct{}{}
	for _, owners := range []map[proxy.Frontend]model.Key{c.Gone.Owners, c.Come.Owners} {
		for _, owner := range owners {
			services[owner] = struct{}{}
		}
	}
	s.endGone(c.Come, func(owner model.Key) bool { _, is := services[owner]; return is })
}

// apply makes state what is wanted.
func (s *Server) apply(state State) {
	s.mu.Lock()
	s.wanted, s.sticky = state, map[Listener]netip.AddrPort{}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// endGone ends what is carried to endpoints that are gone. all has all frontends of the Services that changed.
func (s *Server) endGone(all proxy.State, changed func(model.Key) bool) {
	s.mu.Lock()
	var gone, maybe []*carriage
	services := map[model.Key]proxy.Set[netip.Addr]{}
	for c := range s.carried {
		b, there := s.wanted[c.listener]
		if there {
			c.reset = b.Reset
		}
		switch {
		case b.keeps(c.endpoint) || !changed(c.owner):
		case c.listener.Protocol == proxy.UDP:
			gone = append(gone, c)
		case c.reset:
			maybe, services[c.owner] = append(maybe, c), proxy.Set[netip.Addr]{}
		}
	}
	all.AddEndpoints(services) // a connection goes on for as long as its endpoint is there, also if new ones come by another port or way
	for _, c := range maybe {
		if _, lives := services[c.owner][c.endpoint.Addr()]; !lives {
			gone = append(gone, c)
		}
	}
	s.mu.Unlock()
	for _, c := range gone {
		c.end()
	}
}

// Problems says which ports cannot be served. node is this node's name.
func (s *Server) Problems(node string) []model.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []model.Problem
	for l, f := range s.failed {
		reason, remedy := f.cause()
		out = append(out, model.Problemf(model.Ref("Service", f.owner), reason,
			"Node %s does not serve it at %s: %v. At the node's other addresses it is served. %s", node, l, f.err, remedy))
	}
	return model.SortProblems(out)
}

// cause is the reason of a failure for a Problem, and what helps.
func (f failure) cause() (reason, remedy string) {
	switch {
	case errors.Is(f.err, unix.EADDRINUSE):
		return "LocalhostPortTaken", "Stop the process that has the port (ss -lntup), or give the Service another nodePort."
	case errors.Is(f.err, unix.EMFILE):
		return "LocalhostPortNotServed", "Let the node agent open more files (its RLIMIT_NOFILE; LimitNOFILE of the container runtime's unit), or switch these ports off (--localhost-nodeports=false)."
	case errors.Is(f.err, unix.ENFILE):
		return "LocalhostPortNotServed", "Raise fs.file-max of the node, or find who opens so many files (lsof)."
	}
	return "LocalhostPortNotServed", "It is tried again each few seconds."
}

// Run serves until ctx is done, and ends all connections then.
func (s *Server) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	open := map[Listener]io.Closer{}
	defer func() {
		for _, l := range open {
			_ = l.Close()
		}
		for _, c := range s.all() {
			c.end()
		}
	}()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-retry.C:
		}
		s.listen(ctx, open, &work)
	}
}

func (s *Server) all() []*carriage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.carried))
}

// listen opens and closes listeners so that open has what is wanted.
func (s *Server) listen(ctx context.Context, open map[Listener]io.Closer, work *sync.WaitGroup) {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	for l, c := range open {
		if _, stays := wanted[l]; !stays {
			_ = c.Close()
			delete(open, l)
		}
	}
	failed := map[Listener]failure{}
	for l, b := range wanted {
		if open[l] != nil {
			continue
		}
		var c io.Closer
		var run func()
		err := link.InNetNS(s.netns, func() (err error) {
			if l.Protocol == proxy.TCP {
				var t *net.TCPListener
				t, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(l.Addr))
				c, run = t, func() { s.accept(ctx, l, t, work) }
			} else {
				var u *net.UDPConn
				u, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.Addr))
				c, run = u, func() { s.relay(ctx, l, u, work) }
			}
			return err
		})
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a node without IPv6
		}
		if err != nil {
			failed[l] = failure{err, b.Owner}
			continue
		}
		open[l] = c
		work.Go(run)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = failed
}

// begin notes a connection and returns its endpoint; ok is false where there is none any more, or there are too many. The UDP
// flow that is silent for longest makes room: a client that asks from a new port each time leaves a flow behind each time.
func (s *Server) begin(l Listener, end func()) (c *carriage, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, there := s.wanted[l]
	if !there {
		return nil, false
	}
	if len(s.carried) >= maxCarried {
		oldest := s.oldestFlow()
		if oldest == nil {
			return nil, false
		}
		delete(s.carried, oldest)
		oldest.end()
	}
	c = &carriage{listener: l, endpoint: s.choose(l, b), owner: b.Owner, reset: b.Reset, end: end}
	c.used.Store(time.Now().UnixNano())
	s.carried[c] = struct{}{}
	return c, true
}

// choose returns the endpoint for a new connection. That of a sticky Service takes a table of all its slots, which is made for the first one. It
// is called with mu held.
func (s *Server) choose(l Listener, b Backends) netip.AddrPort {
	if !b.Sticky {
		return b.choose()
	}
	e, is := s.sticky[l]
	if !is {
		e = b.choose()
		s.sticky[l] = e
	}
	return e
}

// oldestFlow is the UDP flow that is silent for longest, nil if there is none. It is called with mu held.
func (s *Server) oldestFlow() (oldest *carriage) {
	for c := range s.carried {
		if c.listener.Protocol == proxy.UDP && (oldest == nil || c.used.Load() < oldest.used.Load()) {
			oldest = c
		}
	}
	return oldest
}

func (s *Server) over(c *carriage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.carried, c)
}

// dial connects to an endpoint.
func (s *Server) dial(ctx context.Context, c *carriage) (conn net.Conn, err error) {
	err = link.InNetNS(s.netns, func() error {
		conn, err = (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, c.listener.Protocol.String(), c.endpoint.String())
		return err
	})
	return conn, err
}

// accept takes connections until the listener is closed.
func (s *Server) accept(ctx context.Context, l Listener, from *net.TCPListener, work *sync.WaitGroup) {
	for {
		client, err := from.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many open files, for example
			s.log.Warn("cannot accept", "listener", l, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		default:
			work.Go(func() { s.carry(ctx, l, client) })
		}
	}
}

// carry serves one TCP connection. Without an endpoint the client is reset, as by the kernel's rules.
func (s *Server) carry(ctx context.Context, l Listener, client *net.TCPConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, ok := s.begin(l, cancel)
	if !ok {
		abort(client)
		return
	}
	defer s.over(c)
	conn, err := s.dial(ctx, c)
	if err != nil {
		abort(client)
		return
	}
	server := conn.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() { abort(client); abort(server) })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { pipe(client, server) })
	pipe(server, client)
	back.Wait()
	_, _ = client.Close(), server.Close()
}

// pipe copies what one end says until it says no more, and tells the other. If that fails, both end by a reset.
func pipe(to, from *net.TCPConn) {
	_, err := to.ReadFrom(from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil && !errors.Is(err, unix.ENOTCONN) {
		abort(to)
		abort(from)
	}
}

// abort closes a connection by a reset.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// String says how much is carried, for people.
func (s *Server) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d ports, %d connections", len(s.wanted)-len(s.failed), len(s.carried))
}
