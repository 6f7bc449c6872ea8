package localhost

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// flowIdle is how long a UDP flow without packets is remembered that was answered and went on, flowShort one that was not: as by
	// conntrack (nf_conntrack_udp_timeout_stream, nf_conntrack_udp_timeout). It went on if it has a datagram after flowYoung.
	flowIdle  = 2 * time.Minute
	flowShort = 30 * time.Second
	flowYoung = 2 * time.Second
)

// maxDatagram is the longest UDP datagram.
const maxDatagram = 65535

// buffers are for datagrams on their way. One is in use for as long as a datagram is received and sent on, which waits for
// nothing: so there are few, however many listeners and flows there are.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[maxDatagram]byte {
	if buf, ok := b.pool.Get().(*[maxDatagram]byte); ok {
		return buf
	}
	return new([maxDatagram]byte)
}

// receive waits for one datagram and calls f with it. Only then there is a buffer. An error of the socket that is none of its end, as an
// ICMP error for an earlier datagram, is a datagram less.
func (b *buffers) receive(c syscall.RawConn, f func(datagram []byte, from unix.Sockaddr)) error {
	var failed error
	err := c.Read(func(fd uintptr) bool {
		buf := b.get()
		defer b.pool.Put(buf)
		n, from, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			failed = err
		default:
			f(buf[:n], from)
		}
		return true
	})
	return errors.Join(err, failed)
}

// clientOf is where a datagram comes from.
func clientOf(from unix.Sockaddr) netip.AddrPort {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// A flow is a client's way to its endpoint.
type flow struct {
	*carriage
	to    net.Conn
	since time.Time
}

// heard notes a datagram, after which the flow stays for a while.
func (f flow) heard() {
	now := time.Now()
	f.used.Store(now.UnixNano())
	idle := flowShort
	if now.Sub(f.since) > flowYoung {
		idle = flowIdle
	}
	_ = f.to.SetReadDeadline(now.Add(idle))
}

// A flows has the UDP flows of one listener.
type flows struct {
	mu sync.Mutex
	by map[netip.AddrPort]flow // of the client
}

// relay carries the datagrams of a listener until it is closed. A client is a flow: it stays with its endpoint.
func (s *Server) relay(ctx context.Context, l Listener, from *net.UDPConn, work *sync.WaitGroup) {
	f := &flows{by: map[netip.AddrPort]flow{}}
	defer f.closeAll()
	raw, err := from.SyscallConn()
	if err != nil {
		return // closed
	}
	for {
		err := s.buffers.receive(raw, func(datagram []byte, sender unix.Sockaddr) {
			client := clientOf(sender)
			to, there := f.of(client)
			if !there {
				if to, there = s.newFlow(ctx, l, client, from, f, work); !there {
					return // as a packet that is dropped
				}
			}
			to.heard()
			_, _ = to.to.Write(datagram)
		})
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// newFlow begins a flow, if there is an endpoint and room.
func (s *Server) newFlow(ctx context.Context, l Listener, client netip.AddrPort, back *net.UDPConn, f *flows, work *sync.WaitGroup) (flow, bool) {
	ctx, cancel := context.WithCancel(ctx)
	c, ok := s.begin(l, cancel)
	if !ok {
		cancel()
		return flow{}, false
	}
	conn, err := s.dial(ctx, c)
	if err != nil {
		s.over(c)
		cancel()
		return flow{}, false
	}
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		_ = conn.Close()
		s.over(c)
		cancel()
		return flow{}, false
	}
	to := flow{c, conn, time.Now()}
	f.put(client, to)
	work.Go(func() {
		defer s.over(c)
		defer f.remove(client, to)
		defer cancel()
		context.AfterFunc(ctx, func() { f.remove(client, to) })
		for {
			err := s.buffers.receive(raw, func(datagram []byte, _ unix.Sockaddr) {
				to.heard()
				_, _ = back.WriteToUDPAddrPort(datagram, client)
			})
			if err != nil {
				return // idle, ended or refused: the next datagram begins anew
			}
		}
	})
	return to, true
}

func (f *flows) of(client netip.AddrPort) (flow, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to, there := f.by[client]
	return to, there
}

func (f *flows) put(client netip.AddrPort, to flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[client] = to
}

// remove ends a flow, unless the client has another one by now.
func (f *flows) remove(client netip.AddrPort, to flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = to.to.Close()
	if f.by[client].carriage == to.carriage {
		delete(f.by, client)
	}
}

func (f *flows) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for client, c := range f.by {
		_ = c.to.Close()
		delete(f.by, client)
	}
}
