package localhost

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// flowIdle is how long a UDP flow without packets is remembered: as long as by conntrack (nf_conntrack_udp_timeout_stream).
const flowIdle = 2 * time.Minute

// maxDatagram is the longest UDP datagram.
const maxDatagram = 65535

// A flows has the UDP flows of one listener.
type flows struct {
	mu sync.Mutex
	by map[netip.AddrPort]net.Conn // of the client
}

// relay carries the datagrams of a listener until it is closed. A client is a flow: it stays with its endpoint.
func (s *Server) relay(ctx context.Context, l Listener, from *net.UDPConn, work *sync.WaitGroup) {
	f := &flows{by: map[netip.AddrPort]net.Conn{}}
	defer f.closeAll()
	buf := make([]byte, maxDatagram)
	for {
		n, client, err := from.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an answer before
		}
		to := f.of(client)
		if to == nil {
			if to = s.newFlow(ctx, l, client, from, f, work); to == nil {
				continue // as a packet that is dropped
			}
		}
		_ = to.SetReadDeadline(time.Now().Add(flowIdle))
		_, _ = to.Write(buf[:n])
	}
}

// newFlow begins a flow, nil if there is no endpoint or there are too many flows.
func (s *Server) newFlow(ctx context.Context, l Listener, client netip.AddrPort, back *net.UDPConn, f *flows, work *sync.WaitGroup) net.Conn {
	ctx, cancel := context.WithCancel(ctx)
	c, ok := s.begin(l, cancel)
	if !ok {
		cancel()
		return nil
	}
	to, err := s.dial(ctx, c)
	if err != nil {
		s.over(c)
		cancel()
		return nil
	}
	f.put(client, to)
	work.Go(func() {
		defer s.over(c)
		defer f.remove(client, to)
		defer cancel()
		context.AfterFunc(ctx, func() { f.remove(client, to) })
		buf := make([]byte, maxDatagram)
		for {
			n, err := to.Read(buf)
			if err != nil {
				return // idle, ended or refused: the next datagram begins anew
			}
			_ = to.SetReadDeadline(time.Now().Add(flowIdle))
			_, _ = back.WriteToUDPAddrPort(buf[:n], client)
		}
	})
	return to
}

func (f *flows) of(client netip.AddrPort) net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by[client]
}

func (f *flows) put(client netip.AddrPort, to net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[client] = to
}

// remove ends a flow, unless the client has another one by now.
func (f *flows) remove(client netip.AddrPort, to net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = to.Close()
	if f.by[client] == to {
		delete(f.by, client)
	}
}

func (f *flows) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for client, c := range f.by {
		_ = c.Close()
		delete(f.by, client)
	}
}
