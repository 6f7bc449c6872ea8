package arp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Reply is one host's answer to Who.
type Reply struct {
	MAC   string
	After time.Duration
}

// whoTwice is when Who asks again: a frame may be lost.
const whoTwice = 2

// Who asks the LAN of an interface who has an address, and returns all that answer within wait, the first answer of
// each. It asks by ARP probes (RFC 5227 section 1.1), which change no host's tables, on a socket of its own. The host
// itself does not hear the question: an owner must ask elsewhere. It fails where the interface cannot be used.
func Who(ctx context.Context, name string, addr netip.Addr, wait time.Duration) ([]Reply, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("ask who has %s: %s: %w", addr, name, err)
	}
	if !addr.Is4() || len(ifi.HardwareAddr) != len(mac{}) {
		return nil, fmt.Errorf("ask who has %s on %s: ARP is of IPv4 on Ethernet", addr, name)
	}
	prog, err := bpf.Assemble(filter([]netip.Addr{addr}, true))
	if err != nil {
		return nil, fmt.Errorf("assemble ARP filter: %w", err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: prog})
	if err != nil {
		return nil, fmt.Errorf("open ARP socket on %s: %w", name, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	w := who{conn: conn, self: macOf(ifi.HardwareAddr), addr: addr, seen: map[mac]bool{}}
	for range whoTwice {
		if err := w.ask(wait / whoTwice); err != nil {
			return nil, fmt.Errorf("ask who has %s on %s: %w", addr, name, err)
		}
	}
	return w.replies, ctx.Err()
}

// who is one question and its answers.
type who struct {
	conn    *packet.Conn
	self    mac
	addr    netip.Addr
	seen    map[mac]bool
	replies []Reply
}

// ask sends one probe and takes answers for a while.
func (w *who) ask(wait time.Duration) error {
	frame, err := probe(w.self, w.addr).encode()
	if err != nil {
		return err
	}
	if err := w.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	started := time.Now()
	if _, err := w.conn.WriteTo(frame, &packet.Addr{HardwareAddr: broadcast[:]}); err != nil {
		return err
	}
	buf := make([]byte, 256)
	for {
		n, _, err := w.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		m, err := parse(buf[:n])
		if err != nil || m.senderIP != w.addr || m.senderMAC == w.self || w.seen[m.senderMAC] {
			continue
		}
		w.seen[m.senderMAC] = true
		w.replies = append(w.replies, Reply{MAC: m.senderMAC.String(), After: time.Since(started)})
	}
}
