package arp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
)

// A wire is an Announcer on one end of a link, and the test on the other.
type wire struct {
	t    *testing.T
	a    *Announcer
	conn *packet.Conn
	peer net.HardwareAddr
}

func newWire(t *testing.T, hw mac) *wire {
	t.Helper()
	testenv.Root(t)
	ns := testenv.NetNS(t)
	w := &wire{t: t, a: New("vip0", slog.New(slog.DiscardHandler))}
	w.addLink(hw)
	must(t, w.a.Watch([]netip.Addr{vip}, nil))
	w.a.Set([]netip.Addr{vip})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		testenv.InNetNS(t, ns, func() {
			if err := w.a.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return w
}

// addLink makes the pair vip0 and wire0, both up. It runs in the wire's namespace.
func (w *wire) addLink(hw mac) {
	must(w.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vip0", HardwareAddr: hw[:]}, PeerName: "wire0"}))
	ifi, err := net.InterfaceByName("wire0")
	must(w.t, err)
	must(w.t, netlink.LinkSetUp(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifi.Index}}))
	w.peer = ifi.HardwareAddr
	w.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
	must(w.t, err)
	w.t.Cleanup(func() { _ = w.conn.Close() })
	w.edit(netlink.LinkSetUp)
}

func (w *wire) edit(change func(netlink.Link) error) {
	w.t.Helper()
	l, err := netlink.LinkByName("vip0")
	must(w.t, err)
	must(w.t, change(l))
}

// wantAnnounced waits for a gratuitous request of hw for the VIP.
func (w *wire) wantAnnounced(what string, hw mac) {
	w.t.Helper()
	must(w.t, w.conn.SetReadDeadline(time.Now().Add(15*time.Second)))
	b := make([]byte, 256)
	for {
		n, _, err := w.conn.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatalf("%s: the VIP is not announced by %s", what, hw)
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // the link is down for a moment
			continue
		}
		if m, err := parse(b[:n]); err == nil && m == announcements(hw, vip)[0] {
			return
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLinkChanges takes the link down and up, gives it another MAC, and replaces it: each time the VIP is announced
// anew, by the MAC that the link has then.
func TestLinkChanges(t *testing.T) {
	first, second, third := mac{2, 0, 0, 0, 7, 1}, mac{2, 0, 0, 0, 7, 2}, mac{2, 0, 0, 0, 7, 3}
	w := newWire(t, first)
	w.wantAnnounced("start", first)
	w.rest()
	w.edit(netlink.LinkSetDown)
	w.wantLink("down", func(l Link) bool { return !l.Up })
	w.drain() // before the link is up: the first announcement must not get lost
	w.edit(netlink.LinkSetUp)
	w.wantAnnounced("down and up", first)
	w.rest()
	w.edit(func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, second[:]) })
	w.wantAnnounced("another MAC", second)
	w.rest()
	w.edit(netlink.LinkDel)
	w.wantLink("gone", func(l Link) bool { return l.Index == 0 })
	w.addLink(third)
	w.wantAnnounced("another link", third)
	w.ask(third)
}

// rest makes the announcements of the last change be over: the next one would come in half a minute.
func (w *wire) rest() {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	for _, o := range w.a.table.owned {
		o.step, o.next = len(announceAfter), time.Now().Add(announceEvery)
	}
}

// wantLink waits until the Announcer knows of a change.
func (w *wire) wantLink(what string, is func(Link) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !is(w.a.Link()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: the Announcer sees %+v", what, w.a.Link())
		}
	}
}

// drain reads what was sent before.
func (w *wire) drain() {
	must(w.t, w.conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	for b := make([]byte, 256); ; {
		if _, _, err := w.conn.ReadFrom(b); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// ask sends requests for the VIP, as a client does, until hw answers: the kernel tells sockets late that a link is up.
func (w *wire) ask(hw mac) {
	w.t.Helper()
	asker := macOf(w.peer)
	want := answer(hw, request(asker, host, vip))
	frame, err := request(asker, host, vip).encode()
	must(w.t, err)
	b := make([]byte, 256)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		_, err = w.conn.WriteTo(frame, &packet.Addr{HardwareAddr: broadcast[:]})
		must(w.t, err)
		must(w.t, w.conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		for {
			n, _, err := w.conn.ReadFrom(b)
			if err != nil {
				break
			}
			if m, err := parse(b[:n]); err == nil && m == want {
				return
			}
		}
	}
	w.t.Fatalf("the VIP is not answered for: %+v, %+v", w.a.Link(), w.a.Counters())
}
