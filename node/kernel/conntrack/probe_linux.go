package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/link"
)

// probe makes both ends of connections send: to the source of each direction goes what its peer could have sent, with
// numbers that fit no connection, and the answer is an acknowledgement with the right ones (RFC 9293 section 3.10.7.4).
// The table refuses that with a reset. An end that is gone or silent says nothing, and it is the same to it. What cannot
// be sent is left alone: the connection is reset when it sends by itself.
func probe(netns int, directions []Tuple) error {
	sockets, err := openRaw(netns)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(unix.Close(sockets[0]), unix.Close(sockets[1])) }()
	for _, d := range directions {
		sequence := rand.Uint32()
		// Half of all numbers apart: at least one of them is out of any window.
		for _, n := range []uint32{sequence, sequence + 1<<31} {
			p := segment(d.Dst, d.Src, n)
			if d.Src.Addr().Is4() {
				_ = unix.Sendto(sockets[0], p, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: d.Src.Addr().As4()})
			} else {
				_ = unix.Sendto(sockets[1], p, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: d.Src.Addr().As16()})
			}
		}
	}
	return nil
}

// openRaw opens sockets for IPv4 and IPv6 packets with their headers; -1 for a family that the kernel does not have.
func openRaw(netns int) (out [2]int, err error) {
	err = link.InNetNS(netns, func() error {
		for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
			fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
				return fmt.Errorf("open raw socket: %w", err)
			}
			out[i] = fd
		}
		return nil
	})
	return out, err
}

// segment is a bare acknowledgement with its IP header. Its window is zero: by that the table knows it from others.
func segment(src, dst netip.AddrPort, sequence uint32) []byte {
	const ttl, headerWords, ack = 64, 5, 0x10
	tcp := binary.BigEndian.AppendUint16(nil, src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, dst.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, sequence)
	tcp = binary.BigEndian.AppendUint32(tcp, sequence)
	tcp = append(tcp, headerWords<<4, ack, 0, 0, 0, 0, 0, 0)
	pseudo := append(append(src.Addr().AsSlice(), dst.Addr().AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	var ip []byte
	if src.Addr().Is4() {
		ip = []byte{4<<4 | headerWords, 0, 0, byte(20 + len(tcp)), 0, 0, 0, 0, ttl, unix.IPPROTO_TCP, 0, 0} // the kernel sums it up
	} else {
		ip = []byte{6 << 4, 0, 0, 0, 0, byte(len(tcp)), unix.IPPROTO_TCP, ttl}
	}
	ip = append(append(ip, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	return append(ip, tcp...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
