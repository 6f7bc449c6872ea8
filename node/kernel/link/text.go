package link

import (
	"fmt"
	"strings"
)

// String is the State for people, one object a line, in the words of ip(8), bridge(8) and sysctl(8).
func (s State) String() string {
	var b strings.Builder
	if s.Keep {
		b.WriteString("keep\n")
	}
	if s.VXLAN != nil {
		fmt.Fprintln(&b, s.VXLAN)
	}
	lines(&b, s.Sysctls)
	lines(&b, s.Addresses)
	lines(&b, s.Forwards)
	lines(&b, s.Neighbours)
	lines(&b, s.Routes)
	return b.String()
}

func lines[T fmt.Stringer](b *strings.Builder, objects []T) {
	for _, o := range objects {
		fmt.Fprintln(b, o)
	}
}

// String is one line.
func (v VXLAN) String() string {
	mtu := fmt.Sprint(v.MTU)
	if v.MTU == 0 {
		mtu = fmt.Sprintf("underlay-%d", v.Overhead)
	}
	return fmt.Sprintf("link %s address %s mtu %s vxlan id %d local %s dstport %d nolearning",
		v.Name, v.MAC, mtu, v.VNI, v.Local, v.Port)
}

// String is one line.
func (a Address) String() string { return fmt.Sprintf("addr %s dev %s", a.Prefix, a.Device) }

// String is one line.
func (r Route) String() string {
	if r.Unreachable {
		return fmt.Sprintf("route unreachable %s", r.Dst)
	}
	s := fmt.Sprintf("route %s", r.Dst)
	if r.Via.IsValid() {
		s += fmt.Sprintf(" via %s", r.Via)
	}
	s += " dev " + r.Device
	if r.Src.IsValid() {
		s += fmt.Sprintf(" src %s", r.Src)
	}
	if r.Via.IsValid() {
		s += " onlink"
	}
	return s
}

// String is one line.
func (n Neighbour) String() string {
	return fmt.Sprintf("neigh %s lladdr %s dev %s", n.Addr, n.MAC, n.Device)
}

// String is one line.
func (f Forward) String() string {
	return fmt.Sprintf("fdb %s dst %s dev %s", f.MAC, f.Dst, f.Device)
}

// String is one line.
func (s Sysctl) String() string {
	if s.Only != "" {
		return fmt.Sprintf("sysctl %s=%s where %s", s.Name, s.Value, s.Only)
	}
	return fmt.Sprintf("sysctl %s=%s", s.Name, s.Value)
}

// String is the pod's link for people: its two ends, then what each should have.
func (p Pod) String() string {
	return fmt.Sprintf("link %s address %s mtu %d veth\n%slink %s address %s mtu %d veth in pod\n%s",
		p.HostName, p.HostMAC, p.MTU, indent(p.Host), p.Name, p.MAC, p.MTU, indent(p.Inside))
}

func indent(s State) string {
	var b strings.Builder
	for line := range strings.Lines(s.String()) {
		b.WriteString("  " + line)
	}
	return b.String()
}
