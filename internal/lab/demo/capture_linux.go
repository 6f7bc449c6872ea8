package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/lab/topology"
)

// A capture looks at all packets of one address on the router's side of the LAN, in both directions, and counts those that
// it sees twice. Two packets are the same one when all is equal but what a forwarding hop changes (TTL and checksums) and
// they are less than again apart: a TCP retransmission, which is a packet of its own, comes later than that. Linux sends
// resets without an IP id, so two resets that answer two segments look alike: only if they came by different ways (another
// sender's MAC or TTL) are they one packet seen twice, or two hosts that answer.
type capture struct {
	conn *packet.Conn
	vip  netip.Addr
	seed maphash.Seed

	mu      sync.Mutex
	packets int
	twice   []string
	recent  map[uint64]sight
	older   map[uint64]sight
	turned  time.Time

	// end ends run and returns its error.
	end func() error
}

// A sight is when and from where a packet was seen.
type sight struct {
	at  time.Time
	way [7]byte // the sender's MAC and the TTL
}

// again is below the shortest retransmission timeout of Linux (200 ms).
const again = 150 * time.Millisecond

func newCapture(ns, iface string, vip netip.Addr) (*capture, error) {
	c := &capture{vip: vip, seed: maphash.MakeSeed(), recent: map[uint64]sight{}, older: map[uint64]sight{}}
	err := topology.Do(ns, func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		c.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture in %s: %w", ns, err)
	}
	return c, nil
}

// run captures until ctx is done.
func (c *capture) run(ctx context.Context) error {
	defer c.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, _, err := c.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		c.see(buf[:n], time.Now())
	}
}

// see counts one Ethernet frame.
func (c *capture) see(frame []byte, now time.Time) {
	const ethernet, minIP = 14, 20
	if len(frame) < ethernet+minIP || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return
	}
	ip := append([]byte(nil), frame[ethernet:]...)
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	if src != c.vip && dst != c.vip {
		return
	}
	seen := sight{at: now, way: [7]byte(append(frame[6:12:12], ip[8]))}
	reset := isReset(ip)
	blank(ip)
	id := maphash.Bytes(c.seed, ip)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets++
	if now.Sub(c.turned) > again {
		c.older, c.recent, c.turned = c.recent, map[uint64]sight{}, now
	}
	for _, generation := range []map[uint64]sight{c.recent, c.older} {
		before, ok := generation[id]
		if ok && now.Sub(before.at) < again && (!reset || before.way != seen.way) {
			c.twice = append(c.twice, fmt.Sprintf("%s to %s, protocol %d, IP id %d, after %s", src, dst, ip[9], binary.BigEndian.Uint16(ip[4:]), now.Sub(before.at)))
			break
		}
	}
	c.recent[id] = seen
}

// isReset says whether a packet is a TCP reset without an IP id.
func isReset(ip []byte) bool {
	const rst = 0x04
	header := int(ip[0]&0xf) * 4
	return ip[9] == unix.IPPROTO_TCP && len(ip) >= header+20 && ip[header+13]&rst != 0 && ip[4] == 0 && ip[5] == 0
}

// blank zeroes what a hop changes: TTL, the header's checksum and, since a card may fill it in late, the transport's.
func blank(ip []byte) {
	ip[8], ip[10], ip[11] = 0, 0, 0
	header := int(ip[0]&0xf) * 4
	at := map[byte]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[ip[9]]
	if at > 0 && len(ip) >= header+at+2 {
		ip[header+at], ip[header+at+1] = 0, 0
	}
}

// result returns the number of packets, and those that were seen twice.
func (c *capture) result() (packets int, twice []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.packets, append([]string(nil), c.twice...)
}
