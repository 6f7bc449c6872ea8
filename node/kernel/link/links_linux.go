package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Links keeps one network namespace as a State says. Its methods may be called from several goroutines.
type Links struct {
	log   *slog.Logger
	space *space
	kick  chan struct{} // wakes Run

	mu    sync.Mutex // held while the kernel is changed
	want  *State     // nil before the first Set
	watch watched

	failed atomic.Pointer[string] // why the last pass did not do all, nil if it did
}

// watched are the devices whose changes concern us.
type watched struct{ overlay, underlay int }

// New opens the network namespace that the calling thread is in. Close frees what it holds.
func New(log *slog.Logger) (*Links, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("get network namespace: %w", err)
	}
	s, err := openSpace(ns)
	if err != nil {
		return nil, err
	}
	return &Links{log: log, space: s, kick: make(chan struct{}, 1)}, nil
}

// Close leaves the kernel's state as it is.
func (l *Links) Close() { l.space.close() }

// Writes counts the changes made to the kernel since New.
func (l *Links) Writes() int64 { return l.space.writes.Load() }

// Set makes the namespace match want, and Run keeps it so. It reads the kernel first and writes only what
// differs. It goes on after an error and returns all of them. A State that says Keep changes nothing.
func (l *Links) Set(ctx context.Context, want State) error {
	if want.Keep {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = &want
	err := l.apply(ctx)
	l.keep(ctx, err)
	if err != nil {
		l.wake() // Run tries again soon
	}
	return err
}

// Tune sets sysctls that are no State's, once. Like those they are never reset, but by Restore.
func (l *Links) Tune(list []Sysctl) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.space.sysctls(list, "")
}

// keep remembers how a pass ended.
func (l *Links) keep(ctx context.Context, err error) {
	switch {
	case err == nil:
		l.failed.Store(nil)
	case ctx.Err() == nil:
		why := err.Error()
		l.failed.Store(&why)
	}
}

// Failed says why links and routes are not as they should be; empty if they are.
func (l *Links) Failed() string {
	if why := l.failed.Load(); why != nil {
		return *why
	}
	return ""
}

func (l *Links) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Remove takes away all that is Hythe's: the overlay, the routes, and the links of pods.
func (l *Links) Remove(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = &State{Protocol: ProtocolOverlay}
	errs := []error{l.apply(ctx)}
	names, err := l.space.podLinks()
	errs = append(errs, err)
	for _, name := range names {
		errs = append(errs, l.space.deleteLink(name))
	}
	errs = append(errs, l.space.routes(ProtocolPod, 0, nil, nil))
	return errors.Join(errs...)
}

// apply makes the namespace match l.want once. The caller holds mu.
func (l *Links) apply(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	want, s := *l.want, l.space
	if want.Protocol == 0 {
		want.Protocol = ProtocolOverlay
	}
	var errs []error
	devices := indexes{}
	underlay := Underlay{}
	l.watch = watched{}
	if want.VXLAN == nil {
		errs = append(errs, s.removeVXLAN(OverlayName))
	} else {
		var err error
		underlay, err = s.underlay(want.VXLAN.Local)
		errs = append(errs, err)
		index, err := s.vxlan(*want.VXLAN, underlay)
		errs = append(errs, err)
		if index > 0 {
			devices[want.VXLAN.Name] = index
		}
		l.watch = watched{overlay: index, underlay: underlay.Index}
	}
	errs = append(errs, s.sysctls(want.Sysctls, underlay.Name))
	errs = append(errs, s.onDevices(devices, want))
	errs = append(errs, s.routes(want.Protocol, 0, devices, want.Routes))
	return errors.Join(errs...)
}

// onDevices brings the devices up, with their addresses, forwarding entries and neighbours.
func (s *space) onDevices(devices indexes, want State) error {
	var errs []error
	for name, index := range devices {
		errs = append(errs,
			s.addresses(name, index, want.Addresses),
			s.up(name),
			s.forwards(name, index, want.Forwards),
			s.neighbours(name, index, want.Neighbours))
	}
	return errors.Join(errs...)
}

func (s *space) up(name string) error {
	l, err := s.link(name)
	if err != nil || l == nil || l.Attrs().RawFlags&unix.IFF_UP != 0 {
		return err
	}
	return s.write("set link "+name+" up", func() error { return s.nl.LinkSetUp(l) })
}

// FindUnderlay returns the interface that holds a in the calling thread's namespace.
func FindUnderlay(a netip.Addr) (Underlay, error) {
	ns, err := netns.Get()
	if err != nil {
		return Underlay{}, fmt.Errorf("get network namespace: %w", err)
	}
	s, err := openSpace(ns)
	if err != nil {
		return Underlay{}, err
	}
	defer s.close()
	return s.underlay(a)
}

func (s *space) underlay(a netip.Addr) (Underlay, error) {
	is, err := dump("addresses", func() ([]netlink.Addr, error) { return s.nl.AddrList(nil, family(a)) })
	if err != nil {
		return Underlay{}, err
	}
	for _, candidate := range is {
		if addr(candidate.IP) != a {
			continue
		}
		l, err := s.nl.LinkByIndex(candidate.LinkIndex)
		if err != nil {
			return Underlay{}, fmt.Errorf("get link of address %s: %w", a, err)
		}
		attrs := l.Attrs()
		return Underlay{Name: attrs.Name, Index: attrs.Index, MTU: attrs.MTU, MAC: mac(attrs.HardwareAddr)}, nil
	}
	return Underlay{}, fmt.Errorf("find the interface of node address %s: no interface has it", a)
}
