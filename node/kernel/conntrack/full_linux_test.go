package conntrack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	rtnetlink "github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/proxy"
)

// TestFull fills the kernel's table, as a flood of long connections does: new ones are lost, which is counted and told.
func TestFull(t *testing.T) {
	testenv.NetNS(t)
	lo, err := rtnetlink.LinkByName("lo")
	if err == nil {
		err = rtnetlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The kernel tracks where somebody asks for it: a table with one rule.
	trackAll(t)
	u, err := ReadUsage()
	if err != nil || u.Entries > 10 {
		t.Fatalf("%+v, %v", u, err)
	}
	if u.Limit > 300_000 {
		t.Skipf("the table has room for %d entries", u.Limit)
	}
	before := ReadLosses()
	if problems := Problems("node-1", u); len(problems) > 0 || before.Dropped != 0 {
		t.Errorf("at first: %v, %+v", problems, before)
	}
	if err := exchange(); err != nil {
		t.Fatalf("before it is full: %v", err)
	}
	fill(t, u.Limit+1)
	if err := exchange(); err == nil {
		t.Error("a new connection passes a full table")
	}
	u, err = ReadUsage()
	problems := Problems("node-1", u)
	if err != nil || u.Entries < u.Limit || u.Dropped == 0 || len(problems) != 1 || !strings.Contains(problems[0].Message, "packets so far") {
		t.Errorf("a full table: %+v, %v, %v", u, err, problems)
	}
	if after := ReadLosses(); after.Dropped <= before.Dropped {
		t.Errorf("losses: %+v", after)
	}
}

// exchange is one UDP datagram on this host.
func exchange() error {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := net.Dial("udp", l.LocalAddr().String())
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write([]byte("?")); err != nil {
		return err
	}
	_ = l.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, _, err = l.ReadFrom(make([]byte, 10))
	return err
}

// trackAll adds a rule that looks at the state of connections.
func trackAll(t *testing.T) {
	t.Helper()
	out, err := exec.Command("nft", "table inet track { chain out { type filter hook output priority 0; ct state new accept; }; }").CombinedOutput()
	if err != nil {
		t.Skipf("nft: %v: %s", err, out)
	}
}

// fill makes n entries of UDP flows that were answered, which never make room for others.
func fill(t *testing.T, n int) {
	t.Helper()
	const attrStatus, attrTimeout, confirmedAssured = 3, 7, 1<<3 | 1<<2 | 1<<1
	tuple := func(src, dst netip.AddrPort) func(*netlink.AttributeEncoder) error {
		return func(ae *netlink.AttributeEncoder) error {
			ae.Nested(attrTupleIP, func(ae *netlink.AttributeEncoder) error {
				ae.Bytes(attrIPv4Src, src.Addr().AsSlice())
				ae.Bytes(attrIPv4Src+1, dst.Addr().AsSlice())
				return nil
			})
			ae.Nested(attrTupleProto, func(ae *netlink.AttributeEncoder) error {
				ae.Uint8(attrProtoNum, uint8(proxy.UDP))
				ae.Uint16(attrSrcPort, src.Port())
				ae.Uint16(attrDstPort, dst.Port())
				return nil
			})
			return nil
		}
	}
	c, err := dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var batch []netlink.Message
	for i := range n {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 5000)
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 53)
		m, err := message(0, netlink.Create|netlink.Excl, false, func(ae *netlink.AttributeEncoder) {
			ae.Nested(attrOriginal, tuple(src, dst))
			ae.Nested(attrReply, tuple(dst, src))
			ae.Bytes(attrStatus, binary.BigEndian.AppendUint32(nil, confirmedAssured))
			ae.Bytes(attrTimeout, binary.BigEndian.AppendUint32(nil, 600))
		})
		if err != nil {
			t.Fatal(err)
		}
		if batch = append(batch, m); len(batch) < 200 && i < n-1 {
			continue
		}
		if _, err := c.SendMessages(batch); err != nil { // the last ones are refused, without a word here
			t.Fatal(err)
		}
		batch = nil
	}
}
