package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

// FreePort is a TCP port of 127.0.0.1 for a server that somebody else will start. It lies below the range from which the
// kernel takes ports for outgoing connections (net.ipv4.ip_local_port_range, from 32768): a port that was only listened
// on for a moment is soon some connection's, and the server cannot have it, nor have it again after a restart.
func FreePort(tb testing.TB) uint16 {
	tb.Helper()
	const lowest, count = 10_000, 22_000
	for range 100 {
		port := uint16(lowest + rand.N(count))
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			tb.Fatal(err)
		}
		return port
	}
	tb.Fatal("no free port below 32768")
	return 0
}

// FreeAddress is 127.0.0.1 with a FreePort.
func FreeAddress(tb testing.TB) netip.AddrPort {
	tb.Helper()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), FreePort(tb))
}
