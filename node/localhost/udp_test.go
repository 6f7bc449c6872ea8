package localhost

import (
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/node/proxy"
)

// echo answers datagrams with themselves, in capital letters.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(strings.ToUpper(string(buf[:n]))), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// asks wants an answer to a datagram; until the listener is there, some may be lost.
func asks(t *testing.T, c net.Conn, text string) {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, _ = c.Write([]byte(text))
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Read(buf)
		if err == nil && string(buf[:n]) == strings.ToUpper(text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of %d, %v", n, len(text), err)
		}
	}
}

func udp(t *testing.T, at netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestFlowsAreCheap has many flows, each with a client of its own: a flow takes no buffer while nothing is on its way.
func TestFlowsAreCheap(t *testing.T) {
	const flows = 300
	s, at := start(t), free(t)
	s.wants(State{{at, proxy.UDP}: {Endpoints: []netip.AddrPort{echo(t)}}})
	memory := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what a pool had
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	first := udp(t, at)
	asks(t, first, strings.Repeat("a", 60_000))
	var clients []net.Conn
	for range flows {
		clients = append(clients, udp(t, at))
	}
	before := memory()
	for _, c := range clients {
		_, _ = c.Write([]byte("x"))
		buf := make([]byte, 10)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(buf); string(buf[:n]) != "X" {
			t.Fatal(err)
		}
	}
	after := memory()
	if n := len(s.all()); n != flows+1 {
		t.Errorf("%d flows", n)
	}
	if each := (after - before) / flows; each > 16<<10 {
		t.Errorf("a flow takes %d bytes", each)
	}
	for _, c := range clients[:20] {
		asks(t, c, "they go on")
	}
}

// TestFlowsMakeRoom: where too much is carried, the flow that is silent for longest goes, and no connection.
func TestFlowsMakeRoom(t *testing.T) {
	s, at := start(t), free(t)
	s.wants(State{{at, proxy.UDP}: {Endpoints: []netip.AddrPort{echo(t)}}})
	old, recent := udp(t, at), udp(t, at)
	asks(t, old, "a")
	asks(t, recent, "b")
	asks(t, old, "a")
	asks(t, recent, "b")
	s.mu.Lock()
	for range maxCarried - len(s.carried) {
		s.carried[&carriage{end: func() { t.Error("a connection was ended") }, listener: Listener{at, proxy.TCP}}] = struct{}{}
	}
	s.mu.Unlock()
	asks(t, udp(t, at), "one more")
	local := func(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	s.mu.Lock()
	left := 0
	for c := range s.carried {
		if c.listener.Protocol == proxy.UDP {
			left++
		} else {
			delete(s.carried, c)
		}
	}
	s.mu.Unlock()
	if left != 2 {
		t.Errorf("%d flows are left, with %v and %v", left, local(old), local(recent))
	}
	asks(t, recent, "it went on")
	asks(t, old, "a flow of its own again")
}
