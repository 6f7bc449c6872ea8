package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// probeFor is how long an answer may take, probeTries how often is asked.
const (
	probeFor   = 700 * time.Millisecond
	probeTries = 2
)

// shortProbe is the size of a packet that passes everywhere, in bytes.
const shortProbe = 100

// Plan lists the probes of a node: each peer by a short and by the longest packet, on the machines' own network and, where
// there is the overlay, at the other end of it.
func Plan(f Facts) []Probe {
	var out []Probe
	long := 0
	if underlay := f.underlay(); underlay != nil {
		long = underlay.MTU
	}
	add := func(p Peer, over string, to netip.Addr, long int) {
		if !to.Is4() {
			return
		}
		out = append(out, Probe{Node: p.Node, Over: over, To: to, Size: shortProbe})
		if long > shortProbe {
			out = append(out, Probe{Node: p.Node, Over: over, To: to, Size: long})
		}
	}
	for _, p := range f.Cluster.Peers {
		add(p, "underlay", p.Address, long)
		for _, r := range p.PodCIDRs {
			if f.Cluster.Overlay {
				add(p, "overlay", r.Masked().Addr(), f.Cluster.PodMTU)
			}
		}
	}
	return out
}

// Send sends probes, all at the same time, and returns them with what came of them. It needs CAP_NET_RAW. The sockets are of
// the network namespace that the calling thread is in.
func Send(ctx context.Context, probes []Probe) []Probe {
	out := make([]Probe, len(probes))
	sockets := make([]*net.IPConn, len(probes))
	for i, p := range probes { // here, and not in goroutines, which may run in another namespace
		out[i] = p
		var err error
		if sockets[i], err = openProbe(ctx); err != nil {
			out[i].Error = err.Error()
		}
	}
	var wg sync.WaitGroup
	for i, socket := range sockets {
		if socket == nil {
			continue
		}
		wg.Go(func() {
			defer socket.Close()
			start := time.Now()
			if err := echo(ctx, socket, out[i].To, out[i].Size, i); err != nil {
				out[i].Error = err.Error()
				return
			}
			out[i].After = time.Since(start)
		})
	}
	wg.Wait()
	return out
}

// openProbe opens a raw socket that sends with DF whatever path MTU the kernel has learned.
func openProbe(ctx context.Context) (*net.IPConn, error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	socket, ok := conn.(*net.IPConn)
	if !ok {
		conn.Close()
		return nil, errors.New("open raw socket: no IP socket")
	}
	raw, err := socket.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		}))
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("forbid fragments: %w", err)
	}
	return socket, nil
}

// headers are those of IPv4 and ICMP echo (RFC 791, RFC 792), in bytes.
const headers = 20 + 8

// echo asks to for an answer to a packet of size bytes.
func echo(ctx context.Context, socket *net.IPConn, to netip.Addr, size, number int) error {
	id := (os.Getpid() + number) & 0xffff
	payload := make([]byte, max(8, size-headers))
	binary.BigEndian.PutUint64(payload, uint64(time.Now().UnixNano()))
	var err error
	for seq := range probeTries {
		message := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: seq, Data: payload}}
		packet, marshalErr := message.Marshal(nil)
		if marshalErr != nil {
			return marshalErr
		}
		if _, err = socket.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
			if errors.Is(err, unix.EMSGSIZE) {
				return fmt.Errorf("longer than the MTU of the interface here")
			}
			continue
		}
		if err = await(ctx, socket, to, id, seq); err == nil {
			return nil
		}
	}
	return err
}

// await waits for the answer, or for word that the packet was too long for somebody on the way.
func await(ctx context.Context, socket *net.IPConn, to netip.Addr, id, seq int) error {
	deadline := time.Now().Add(probeFor)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := socket.SetReadDeadline(deadline); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("no answer within %s", probeFor)
		}
		if err != nil {
			return err
		}
		message, err := icmp.ParseMessage(1, buffer[:n]) // 1 is ICMP for IPv4
		if err != nil {
			continue
		}
		body, ok := message.Body.(*icmp.Echo)
		if ok && message.Type == ipv4.ICMPTypeEchoReply && body.ID == id && body.Seq == seq && from.String() == to.String() {
			return nil
		}
	}
}
