package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// upWithin is how long cables may take to carry frames. The kernel's link watch may rest for a second between two rounds.
const upWithin = 10 * time.Second

// Up makes the planned machines and cables, and returns when every cable carries frames. What is there already is an
// error: call Down first.
func Up(p Plan) error {
	for _, ns := range p.Namespaces {
		if err := makeNamespace(ns); err != nil {
			return err
		}
	}
	for _, c := range p.Cables {
		if err := plug(c); err != nil {
			return fmt.Errorf("plug %s of %s into %s: %w", c.B.Interface, c.B.Namespace, c.A.Namespace, err)
		}
	}
	deadline := time.Now().Add(upWithin)
	for _, c := range p.Cables {
		for _, e := range []End{c.A, c.B} {
			if err := waitUp(e.Namespace, e.Interface, deadline); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitUp waits until the kernel calls the link up. Setting it up is not enough: a bridge drops the frames of a port until
// the link watch has seen its carrier (operstate, RFC 2863), and a client's first SYN would be lost for a second.
func waitUp(ns, name string, deadline time.Time) error {
	h, err := handle(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	for {
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", name, ns, err)
		}
		state := link.Attrs().OperState
		if state == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s in %s is %s after %s, want up", name, ns, state, upWithin)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func makeNamespace(ns Namespace) error {
	if err := CreateNamespace(ns.Name); err != nil {
		return err
	}
	if ns.Bridge != "" {
		h, err := handle(ns.Name)
		if err != nil {
			return err
		}
		defer h.Close()
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: ns.Bridge}}
		if err := h.LinkAdd(br); err != nil {
			return fmt.Errorf("add bridge %s in %s: %w", ns.Bridge, ns.Name, err)
		}
		if err := h.LinkSetUp(br); err != nil {
			return fmt.Errorf("set bridge %s in %s up: %w", ns.Bridge, ns.Name, err)
		}
	}
	return Do(ns.Name, func() error {
		for _, s := range ns.Sysctls {
			err := os.WriteFile(filepath.Join("/proc/sys", s[0]), []byte(s[1]), 0o644)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("set sysctl %s in %s: %w", s[0], ns.Name, err)
			}
		}
		return nil
	})
}

// CreateNamespace makes a named network namespace whose loopback interface is up.
func CreateNamespace(name string) error {
	err := onOwnThread(func() error {
		ns, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		return ns.Close()
	})
	if err != nil {
		return fmt.Errorf("make network namespace %s: %w", name, err)
	}
	h, err := handle(name)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in %s: %w", name, err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo in %s up: %w", name, err)
	}
	return nil
}

// DeleteNamespace removes the name of a namespace; the kernel removes the namespace when nobody uses it any more.
// One that is not there is no error.
func DeleteNamespace(name string) error {
	if _, err := os.Lstat(Path(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := netns.DeleteNamed(name); err != nil {
		// A crash between making the file and mounting on it leaves a plain file.
		if rmErr := os.Remove(Path(name)); rmErr != nil {
			return fmt.Errorf("delete network namespace %s: %w", name, err)
		}
	}
	return nil
}

// Path is where the named namespace is mounted.
func Path(name string) string { return filepath.Join("/run/netns", name) }

// handle opens netlink in a namespace; without a name in the current one.
func handle(ns string) (*netlink.Handle, error) {
	if ns == "" {
		return netlink.NewHandle()
	}
	fd, err := netns.GetFromName(ns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", ns, err)
	}
	defer fd.Close()
	h, err := netlink.NewHandleAt(fd)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns, err)
	}
	return h, nil
}

func plug(c Cable) error {
	a, err := handle(c.A.Namespace)
	if err != nil {
		return err
	}
	defer a.Close()
	peer, err := netns.GetFromName(c.B.Namespace)
	if err != nil {
		return err
	}
	defer peer.Close()
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: c.A.Interface, HardwareAddr: c.A.MAC},
		PeerName:         c.B.Interface,
		PeerHardwareAddr: c.B.MAC,
		PeerNamespace:    netlink.NsFd(peer),
	}
	if err := a.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	if err := configure(a, c.A); err != nil {
		return err
	}
	b, err := handle(c.B.Namespace)
	if err != nil {
		return err
	}
	defer b.Close()
	return configure(b, c.B)
}

func configure(h *netlink.Handle, e End) error {
	link, err := h.LinkByName(e.Interface)
	if err != nil {
		return err
	}
	if e.Bridge != "" {
		br, err := h.LinkByName(e.Bridge)
		if err != nil {
			return err
		}
		if err := h.LinkSetMaster(link, br); err != nil {
			return fmt.Errorf("make it a port of %s: %w", e.Bridge, err)
		}
	}
	if e.Address.IsValid() {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(e.Address)}); err != nil {
			return fmt.Errorf("add address %s: %w", e.Address, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if e.Gateway.IsValid() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: e.Gateway.AsSlice()}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("add default route: %w", err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// SetCable pulls a machine's cable out of the LAN, or puts it back. The machine's interface loses its carrier.
func SetCable(lab, role string, in bool) error {
	h, err := handle(NamespaceName(lab, LAN))
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(role)
	if err != nil {
		return fmt.Errorf("find the LAN's port of %s: %w", role, err)
	}
	set := h.LinkSetDown
	if in {
		set = h.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set the LAN's port of %s: %w", role, err)
	}
	if in {
		return waitUp(NamespaceName(lab, LAN), role, time.Now().Add(upWithin))
	}
	return nil
}

// Addresses lists the addresses of all interfaces in a namespace, by interface.
func Addresses(ns string) (map[string][]netip.Addr, error) {
	h, err := handle(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", ns, err)
	}
	out := map[string][]netip.Addr{}
	for _, link := range links {
		addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses in %s: %w", ns, err)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				out[link.Attrs().Name] = append(out[link.Attrs().Name], ip.Unmap())
			}
		}
	}
	return out, nil
}
