package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/lab/topology"
)

// A voice is an ARP reply that was heard.
type voice struct {
	at  time.Time
	mac string
}

// An asker asks by ARP (RFC 826) for one address, again and again, from a machine on the LAN.
type asker struct {
	conn   *packet.Conn
	iface  *net.Interface
	own    netip.Addr
	target netip.Addr

	mu     sync.Mutex
	voices []voice
}

// newAsker opens a packet socket in the namespace of a machine. own is the machine's address.
func newAsker(ns, iface string, own, target netip.Addr) (*asker, error) {
	a := &asker{own: own, target: target}
	err := topology.Do(ns, func() (err error) {
		if a.iface, err = net.InterfaceByName(iface); err != nil {
			return err
		}
		a.conn, err = packet.Listen(a.iface, packet.Raw, unix.ETH_P_ARP, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for ARP in %s: %w", ns, err)
	}
	return a, nil
}

// run asks every interval until ctx is done, and notes who answers.
func (a *asker) run(ctx context.Context, interval time.Duration) error {
	defer a.conn.Close()
	heard := make(chan error, 1)
	go func() { heard <- a.listen() }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		// A lost carrier is for the others to notice.
		if _, err := a.conn.WriteTo(a.request(), &packet.Addr{HardwareAddr: broadcast()}); err != nil && !errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("send ARP request: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = a.conn.SetReadDeadline(time.Now())
			return <-heard
		case err := <-heard:
			return err
		case <-tick.C:
		}
	}
}

func broadcast() net.HardwareAddr { return bytes.Repeat([]byte{0xff}, 6) }

// request is an Ethernet frame: who has target? tell own.
func (a *asker) request() []byte {
	frame := append(broadcast(), a.iface.HardwareAddr...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	frame = append(frame, a.iface.HardwareAddr...)
	frame = append(frame, a.own.AsSlice()...)
	frame = append(frame, make([]byte, 6)...)
	return append(frame, a.target.AsSlice()...)
}

// listen notes replies to this machine until the read deadline.
func (a *asker) listen() error {
	buf := make([]byte, 1500)
	for {
		n, _, err := a.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read ARP reply: %w", err)
		}
		frame := buf[:n]
		if n < 42 || binary.BigEndian.Uint16(frame[20:]) != 2 || !bytes.Equal(frame[28:32], a.target.AsSlice()) || !bytes.Equal(frame[:6], a.iface.HardwareAddr) {
			continue
		}
		a.mu.Lock()
		a.voices = append(a.voices, voice{at: time.Now(), mac: net.HardwareAddr(frame[22:28]).String()})
		a.mu.Unlock()
	}
}

// heard returns the replies since a moment.
func (a *asker) heard(since time.Time) []voice {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []voice
	for _, v := range a.voices {
		if v.at.After(since) {
			out = append(out, v)
		}
	}
	return out
}

// whoHas asks once and returns all that answer within the window.
func whoHas(ctx context.Context, ns, iface string, own, target netip.Addr, window time.Duration) ([]voice, error) {
	a, err := newAsker(ns, iface, own, target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	started := time.Now()
	if err := a.run(ctx, 2*window); err != nil {
		return nil, err
	}
	return a.heard(started), nil
}
