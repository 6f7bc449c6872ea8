package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// The chunks of SCTP that the test sends (RFC 9260 section 3.2).
const (
	chunkData    = 0
	chunkInit    = 1
	chunkInitAck = 2
)

// sctp is a packet of one chunk. The kernel that runs the test may have no SCTP sockets, as long as it tracks and translates SCTP.
func sctp(from, to uint16, tag uint32, chunk byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, from)
	p = binary.BigEndian.AppendUint16(p, to)
	p = binary.BigEndian.AppendUint32(p, tag)
	p = append(p, 0, 0, 0, 0)                                                      // checksum
	p = append(p, chunk, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9) // of an INIT: tag 7, window, streams, number
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// An end is where a host sends and hears SCTP packets.
type end struct {
	host
	net.PacketConn
}

func (h host) sctp(addr string) end {
	h.Helper()
	network := "ip4:132"
	if netip.MustParseAddr(addr).Is6() {
		network = "ip6:132"
	}
	e := end{host: h}
	h.do(func() {
		var err error
		e.PacketConn, err = net.ListenPacket(network, addr)
		h.must(err)
	})
	h.Cleanup(func() { _ = e.Close() })
	return e
}

func (e end) sends(to string, p []byte) {
	e.Helper()
	_, err := e.WriteTo(p, &net.IPAddr{IP: net.ParseIP(to)})
	e.must(err)
}

// hears wants a packet from an address with these ports (0 for any), a right checksum and this chunk. It returns the port that it is from.
func (e end) hears(from string, sport, dport uint16, chunk byte) uint16 {
	e.Helper()
	e.must(e.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 200)
	n, addr, err := e.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Errorf("%s hears nothing from %s", e.name, from)
		return 0
	}
	e.must(err)
	p := append([]byte(nil), buf[:n]...)
	sum := binary.LittleEndian.Uint32(p[8:])
	copy(p[8:12], []byte{0, 0, 0, 0})
	is, to := binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	if addr.String() != from || sport != 0 && is != sport || to != dport || p[12] != chunk || sum != crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) {
		e.Errorf("%s hears %x from %s, want ports %d and %d, chunk %d from %s, and checksum %x", e.name, buf[:n], addr, sport, dport, chunk, from, sum)
	}
	return is
}

// TestSCTP sends SCTP associations by ClusterIP, VIP and NodePort: addresses, ports and checksums are translated on the way and back. What is not
// served is refused, and what belongs to no association is dropped.
func TestSCTP(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established"); err != nil {
		t.Skip("the kernel does not track SCTP")
	}
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		s := snapshot(at)
		for i, addr := range map[int]string{onlyA: at.a, localAway: at.remote, empty: ""} {
			key := model.Key{Namespace: "default", Name: fmt.Sprint("service-", i)}
			s.Services.Get(key).Spec.Ports[0].Protocol = corev1.ProtocolSCTP
			s.Services.Get(key).Spec.ExternalTrafficPolicy = ""
			eps := &s.Endpoints.Get(key).Ports[0]
			if eps.Protocol = corev1.ProtocolSCTP; addr == "" {
				eps.Endpoints = nil
			}
		}
		state, problems := proxy.Build(s, "one", proxy.DefaultSettings())
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		set1(t, testTable(t, InNetNS(int(n.node.ns))), state)
		client, a, b, remote := n.client.sctp(at.client), n.a.sctp(at.a), n.b.sctp(at.b), n.remote.sctp(at.remote)
		vip, ip := func(i int) string { return fmt.Sprintf(at.vip, i) }, func(i int) string { return fmt.Sprintf(at.service, i) }
		port := uint16(5000)
		for _, c := range []struct {
			from, to       end
			addr, at, seen string
			port           int
		}{
			{client, a, at.client, vip(onlyA), at.client, 80},
			{client, a, at.client, at.node, at.client, 30080 + onlyA},
			{b, a, at.b, ip(onlyA), at.b, 80},
			{client, remote, at.client, vip(localAway), at.overlay, 80},
			{client, remote, at.client, at.node, at.overlay, 30080 + localAway},
			{b, remote, at.b, ip(localAway), at.b, 80},
		} {
			port++
			c.from.sends(c.at, sctp(port, uint16(c.port), 0, chunkInit))
			seen := uint16(0) // masqueraded ones have another port
			if c.seen == c.addr {
				seen = port
			}
			from := c.to.hears(c.seen, seen, 8080, chunkInit)
			c.to.sends(c.seen, sctp(8080, from, 7, chunkInitAck))
			c.from.hears(c.at, uint16(c.port), port, chunkInitAck)
		}
		n.node.counts(ruleset.ClosedPort, func() { client.sends(vip(onlyA), sctp(6000, 81, 0, chunkInit)) })
		n.node.counts(ruleset.NoEndpoint, func() { client.sends(vip(empty), sctp(6001, 80, 0, chunkInit)) })
		n.node.counts(ruleset.NoEndpoint, func() { client.sends(at.node, sctp(6002, 30080+empty, 0, chunkInit)) })
		n.node.counts(ruleset.Invalid, func() { client.sends(vip(onlyA), sctp(6003, 80, 9, chunkData)) })
		n.node.counts(ruleset.Invalid, func() { client.sends(at.node, sctp(6004, 30080+onlyA, 9, chunkData)) })
		// Another protocol at the same address and port is another frontend.
		n.client.refused("tcp", vip(onlyA), 80)
	})
}
