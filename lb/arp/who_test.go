package arp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"hythe.dev/hythe/internal/testenv"
)

// TestWho asks a kernel over a real link, and an address that nobody has.
func TestWho(t *testing.T) {
	testenv.Root(t)
	here, there := testenv.NewNetNS(t), testenv.NewNetNS(t)
	peer := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	testenv.InNetNS(t, here, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth0"
		v := netlink.NewVeth(attrs)
		v.PeerName, v.PeerHardwareAddr, v.PeerNamespace = "eth0", peer, netlink.NsFd(int(there))
		if err := netlink.LinkAdd(v); err != nil {
			t.Fatal(err)
		}
	})
	for ns, address := range map[netns.NsHandle]string{here: "192.0.2.1/24", there: "192.0.2.2/24"} {
		testenv.InNetNS(t, ns, func() {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			a, err := netlink.ParseAddr(address)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetUp(l); err != nil {
				t.Fatal(err)
			}
		})
	}
	testenv.InNetNS(t, here, func() {
		var got []Reply
		for deadline := time.Now().Add(5 * time.Second); len(got) == 0 && time.Now().Before(deadline); { // the link comes up
			var err error
			if got, err = Who(t.Context(), "eth0", netip.MustParseAddr("192.0.2.2"), 200*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if len(got) != 1 || got[0].MAC != peer.String() {
			t.Errorf("192.0.2.2 is at %+v, want %s once", got, peer)
		}
		for _, a := range []string{"192.0.2.3", "192.0.2.1"} { // nobody's, and our own
			if got, err := Who(t.Context(), "eth0", netip.MustParseAddr(a), 50*time.Millisecond); err != nil || len(got) > 0 {
				t.Errorf("%s is at %+v (%v)", a, got, err)
			}
		}
		if _, err := Who(t.Context(), "eth9", netip.MustParseAddr("192.0.2.2"), time.Millisecond); err == nil {
			t.Error("an interface that is not there was asked")
		}
		if _, err := Who(t.Context(), "eth0", netip.MustParseAddr("2001:db8::1"), time.Millisecond); err == nil {
			t.Error("an IPv6 address was asked for")
		}
	})
}
