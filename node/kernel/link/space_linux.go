package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A space is one network namespace: where to read, and where to write.
type space struct {
	ns     netns.NsHandle
	nl     *netlink.Handle
	writes atomic.Int64
	// dry collects what would be written in place of writing it.
	dry     bool
	pending []string
	before  before // what sysctls were
}

// openSpace takes ownership of ns.
func openSpace(ns netns.NsHandle) (*space, error) {
	h, err := netlink.NewHandleAt(other(ns), unix.NETLINK_ROUTE)
	if err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	return &space{ns: ns, nl: h}, nil
}

// other returns ns, or none if the calling thread is in it already: to enter a namespace takes CAP_SYS_ADMIN, also one's
// own.
func other(ns netns.NsHandle) netns.NsHandle {
	own, err := netns.Get()
	if err != nil {
		return ns
	}
	defer own.Close()
	if own.Equal(ns) {
		return netns.None()
	}
	return ns
}

func (s *space) close() {
	s.nl.Close()
	_ = s.ns.Close()
}

// write does one change, which what names.
func (s *space) write(what string, change func() error) error {
	if s.dry {
		s.pending = append(s.pending, what)
		return nil
	}
	if err := change(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.writes.Add(1)
	return nil
}

// within calls fn on a thread in the namespace, for what follows the thread, such as /proc/sys/net.
func within(ns netns.NsHandle, fn func() error) error {
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("get network namespace: %w", err)
	}
	defer old.Close()
	if old.Equal(ns) {
		defer runtime.UnlockOSThread()
		return fn()
	}
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = fn()
	if back := netns.Set(old); back != nil {
		// The thread stays locked, so that it ends with its goroutine and nobody inherits the namespace.
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// dump repeats a listing that the kernel says changed while it was read.
func dump[T any](what string, list func() ([]T, error)) ([]T, error) {
	var out []T
	var err error
	for range 10 {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return out, nil
}

// link returns the named link, or nil if there is none.
func (s *space) link(name string) (netlink.Link, error) {
	l, err := s.nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get link %s: %w", name, err)
	}
	return l, nil
}

// sysctls sets those that have another value.
func (s *space) sysctls(list []Sysctl, underlay string) error {
	return within(s.ns, func() error {
		var errs []error
		for _, c := range list {
			if strings.Contains(c.Name, UnderlayName) {
				if underlay == "" {
					continue
				}
				c.Name = strings.ReplaceAll(c.Name, UnderlayName, underlay)
			}
			errs = append(errs, s.sysctl(c))
		}
		return errors.Join(errs...)
	})
}

// HostProcSys is where a container that runs with few privileges has the host's /proc/sys mounted, in which sysctls can
// be written: its own /proc/sys is read-only. Below net, both show the network namespace of whoever reads.
const HostProcSys = "/host/proc/sys"

func (s *space) sysctl(c Sysctl) error {
	path := filepath.Join("/proc/sys", c.Name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(c.Name, "net/ipv6/") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read sysctl: %w", err)
	}
	is := strings.TrimSpace(string(b))
	if is == c.Value || (c.Only != "" && is != c.Only) {
		return nil
	}
	noted := s.before.note(c, is)
	err = s.write("set "+c.String(), func() error {
		return writeSysctl(c.Name, c.Value)
	})
	return errors.Join(noted, err) // a full disk is no reason to go without
}

// ip turns a netip.Addr into what netlink takes; the zero Addr is nil.
func ip(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

// addr is the inverse of ip.
func addr(i net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(i)
	return a.Unmap()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefix is the inverse of ipNet; a nil IPNet is the zero Prefix.
func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), bits)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func mac(h net.HardwareAddr) MAC {
	if len(h) != 6 {
		return MAC{}
	}
	return MAC(h)
}
