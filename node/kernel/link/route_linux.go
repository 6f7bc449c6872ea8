package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The kinds of a FoundRoute.
const (
	Unicast     = "unicast"     // goes out by a device
	Local       = "local"       // is an address of this host itself
	Unreachable = "unreachable" // is refused by a route that says so
	NoRoute     = "none"        // no route leads there, or the source check refuses where it would come from
)

// A FoundRoute is the way that the kernel would send a packet now, and the state of each thing on it.
type FoundRoute struct {
	To netip.Addr `json:"to"`
	// From is the packet's source address, the zero Addr where none was asked for.
	From netip.Addr `json:"from,omitzero"`
	// Kind is one of Unicast, Local, Unreachable, NoRoute.
	Kind string `json:"kind"`
	// Dst is the destination of the route that decided it, the longest that matches.
	Dst netip.Prefix `json:"dst,omitzero"`
	// Protocol is who made the route (rtm_protocol): ProtocolOverlay and ProtocolPod are ours.
	Protocol int `json:"protocol,omitempty"`
	// Via is the next hop, the zero Addr where To itself is on the link.
	Via netip.Addr `json:"via,omitzero"`
	// Src is the source address that this host itself would use.
	Src netip.Addr `json:"src,omitzero"`
	// MTU is how long a packet on this way may be, in bytes.
	MTU    int       `json:"mtu,omitempty"`
	Device FoundLink `json:"device,omitzero"`
	// PodLink says that the device is the node's end of the link of a pod of this node.
	PodLink bool `json:"podLink,omitempty"`
	// Neighbour is the ARP or NDP entry of the next hop, nil where there is none.
	Neighbour *FoundNeighbour `json:"neighbour,omitempty"`
	// Forward is where the device, a VXLAN, sends frames for that neighbour, nil where it knows no place or is none.
	Forward *FoundForward `json:"forward,omitempty"`
}

// A FoundLink is a network device.
type FoundLink struct {
	Name string `json:"name"`
	// Type is the kernel's word, such as "veth" or "vxlan".
	Type string `json:"type"`
	// Up says whether the device is switched on, State whether it works (RFC 2863): "up", "down", "lower-layer-down",
	// or "unknown" for devices that cannot say.
	Up    bool   `json:"up"`
	State string `json:"state"`
	MTU   int    `json:"mtu"` // bytes
	MAC   string `json:"mac,omitempty"`
	// Peer is the index of the peer in the other namespace, for a veth.
	Peer int `json:"peer,omitempty"`
}

// Works says whether packets go through the device, as far as it knows.
func (l FoundLink) Works() bool { return l.Up && (l.State == "up" || l.State == "unknown") }

// A FoundNeighbour is an ARP or NDP entry.
type FoundNeighbour struct {
	Addr netip.Addr `json:"addr"`
	MAC  string     `json:"mac,omitempty"`
	// State is as ip neighbour says: "permanent", "reachable", "stale", "delay", "probe", "failed", "incomplete", "noarp".
	State string `json:"state"`
}

// A FoundForward is a forwarding entry of a VXLAN.
type FoundForward struct {
	MAC string     `json:"mac"`
	Dst netip.Addr `json:"dst"`
}

// ReadRoute asks the kernel for the way from one address to another, in the calling thread's namespace. from is the
// packet's source: the zero Addr, or an address of this host, for packets of its own; another one for packets that
// come in by the device that leads back there, which also asks the kernel's source check. That there is no way is an
// answer (NoRoute) and no error.
func ReadRoute(to, from netip.Addr) (FoundRoute, error) {
	s, err := currentSpace()
	if err != nil {
		return FoundRoute{}, err
	}
	defer s.close()
	return s.readRoute(to.Unmap(), from.Unmap())
}

func (s *space) readRoute(to, from netip.Addr) (FoundRoute, error) {
	f := FoundRoute{To: to, From: from}
	if !to.IsValid() || from.IsValid() && from.Is4() != to.Is4() {
		return f, fmt.Errorf("get route to %s from %s: no addresses of one family", to, from)
	}
	options, err := s.source(from)
	if err != nil {
		return f, err
	}
	route, err := s.getRoute(to, options)
	if kind := kindOf(err); kind != "" {
		f.Kind = kind
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.Via, f.Src, f.MTU = addr(route.Gw), addr(route.Src), route.MTU
	switch route.Type {
	case unix.RTN_LOCAL:
		f.Kind = Local
	case unix.RTN_UNICAST:
		f.Kind = Unicast
	default:
		f.Kind = Unreachable
		return f, nil
	}
	match := options
	match.FIBMatch = true
	if m, err := s.getRoute(to, match); err == nil {
		f.Dst, f.Protocol = destination(m), int(m.Protocol)
	}
	return f, s.readDevice(&f, route.LinkIndex)
}

// source returns how to ask for the way of packets from an address.
func (s *space) source(from netip.Addr) (netlink.RouteGetOptions, error) {
	if !from.IsValid() {
		return netlink.RouteGetOptions{}, nil
	}
	back, err := s.getRoute(from, netlink.RouteGetOptions{})
	if err != nil && kindOf(err) == "" {
		return netlink.RouteGetOptions{}, err
	}
	options := netlink.RouteGetOptions{SrcAddr: ip(from)}
	if err == nil && back.Type != unix.RTN_LOCAL {
		options.IifIndex = back.LinkIndex
	}
	return options, nil
}

func (s *space) getRoute(to netip.Addr, options netlink.RouteGetOptions) (netlink.Route, error) {
	routes, err := s.nl.RouteGetWithOptions(ip(to), &options)
	if err != nil {
		return netlink.Route{}, fmt.Errorf("get route to %s: %w", to, err)
	}
	if len(routes) == 0 {
		return netlink.Route{}, fmt.Errorf("get route to %s: %w", to, unix.ENETUNREACH)
	}
	return routes[0], nil
}

// kindOf is the kind of route that an error of a lookup stands for, "" if it is another error. EXDEV and EINVAL are
// the source check's.
func kindOf(err error) string {
	for _, e := range []error{unix.EHOSTUNREACH, unix.EACCES} {
		if errors.Is(err, e) {
			return Unreachable
		}
	}
	for _, e := range []error{unix.ENETUNREACH, unix.EXDEV, unix.EINVAL} {
		if errors.Is(err, e) {
			return NoRoute
		}
	}
	return ""
}

// readDevice adds the device of a route, and what it knows of the next hop.
func (s *space) readDevice(f *FoundRoute, index int) error {
	l, err := s.nl.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("get link %d: %w", index, err)
	}
	a := l.Attrs()
	f.Device = FoundLink{Name: a.Name, Type: l.Type(), Up: a.Flags&net.FlagUp != 0, State: a.OperState.String(), MTU: a.MTU,
		MAC: a.HardwareAddr.String()}
	if l.Type() == "veth" {
		f.Device.Peer = a.ParentIndex
	}
	f.PodLink = l.Type() == "veth" && isPodLink(a.Name)
	if f.MTU == 0 {
		f.MTU = a.MTU
	}
	if f.Kind != Unicast {
		return nil
	}
	next := f.Via
	if !next.IsValid() {
		next = f.To
	}
	return s.readNext(f, index, next)
}

// readNext adds the neighbour and forwarding entries for the next hop.
func (s *space) readNext(f *FoundRoute, index int, next netip.Addr) error {
	neighbours, err := dump("neighbours", func() ([]netlink.Neigh, error) { return s.nl.NeighList(index, family(next)) })
	if err != nil {
		return err
	}
	for _, n := range neighbours {
		if addr(n.IP) == next {
			f.Neighbour = &FoundNeighbour{Addr: next, MAC: n.HardwareAddr.String(), State: neighbourState(n.State)}
		}
	}
	if f.Device.Type != "vxlan" || f.Neighbour == nil {
		return nil
	}
	entries, err := dump("forwarding entries", func() ([]netlink.Neigh, error) { return s.nl.NeighList(index, unix.AF_BRIDGE) })
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.HardwareAddr.String() == f.Neighbour.MAC {
			f.Forward = &FoundForward{MAC: f.Neighbour.MAC, Dst: addr(e.IP)}
		}
	}
	return nil
}

// neighbourState is the word of ip neighbour for a state (NUD_*).
func neighbourState(state int) string {
	for _, s := range []struct {
		bit  int
		name string
	}{
		{netlink.NUD_PERMANENT, "permanent"}, {netlink.NUD_REACHABLE, "reachable"}, {netlink.NUD_STALE, "stale"},
		{netlink.NUD_DELAY, "delay"}, {netlink.NUD_PROBE, "probe"}, {netlink.NUD_FAILED, "failed"},
		{netlink.NUD_INCOMPLETE, "incomplete"}, {netlink.NUD_NOARP, "noarp"},
	} {
		if state&s.bit != 0 {
			return s.name
		}
	}
	return "none"
}

// LocalAddresses returns the addresses on interfaces of a network namespace, by a file descriptor of it, or of the
// calling thread's if that is 0.
func LocalAddresses(netnsFD int) (map[netip.Addr]bool, error) {
	open := netns.Get
	if netnsFD != 0 {
		open = func() (netns.NsHandle, error) {
			fd, err := unix.FcntlInt(uintptr(netnsFD), unix.F_DUPFD_CLOEXEC, 0)
			return netns.NsHandle(fd), err
		}
	}
	ns, err := open()
	if err != nil {
		return nil, fmt.Errorf("get network namespace: %w", err)
	}
	s, err := openSpace(ns)
	if err != nil {
		return nil, err
	}
	defer s.close()
	list, err := dump("addresses", func() ([]netlink.Addr, error) { return s.nl.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, err
	}
	out := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		out[addr(a.IP)] = true
	}
	return out, nil
}
