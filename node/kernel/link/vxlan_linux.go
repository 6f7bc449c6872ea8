package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// vxlan makes the link, or makes it right, and returns its index. What cannot be changed in place is made anew.
func (s *space) vxlan(want VXLAN, underlay Underlay) (int, error) {
	if want.MTU == 0 && underlay.MTU > want.Overhead {
		want.MTU = underlay.MTU - want.Overhead
	}
	is, err := s.link(want.Name)
	if err != nil {
		return 0, err
	}
	if is != nil {
		v, ok := is.(*netlink.Vxlan)
		if !ok {
			return 0, fmt.Errorf("set link %s: there is a foreign link of type %s by that name", want.Name, is.Type())
		}
		if same(v, want) {
			return v.Index, s.adjust(v, want)
		}
		if err := s.deleteLink(want.Name); err != nil {
			return 0, err
		}
	}
	return s.createVXLAN(want)
}

// same reports whether what cannot be changed in place is as wanted.
func same(is *netlink.Vxlan, want VXLAN) bool {
	return is.VxlanId == int(want.VNI) && is.Port == int(want.Port) && addr(is.SrcAddr) == want.Local &&
		!is.Learning && len(is.Group) == 0
}

// adjust changes what can be changed in place.
func (s *space) adjust(is *netlink.Vxlan, want VXLAN) error {
	var errs []error
	if mac(is.HardwareAddr) != want.MAC {
		errs = append(errs, s.write("set link "+want.Name+" address "+want.MAC.String(),
			func() error { return s.nl.LinkSetHardwareAddr(is, want.MAC[:]) }))
	}
	if want.MTU != 0 && is.MTU != want.MTU {
		errs = append(errs, s.write(fmt.Sprintf("set link %s mtu %d", want.Name, want.MTU),
			func() error { return s.nl.LinkSetMTU(is, want.MTU) }))
	}
	return errors.Join(errs...)
}

func (s *space) createVXLAN(want VXLAN) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = want.Name, want.MTU, want.MAC[:]
	// It has no parent: an underlay that goes away and comes back does not take the overlay with it.
	v := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(want.VNI), Port: int(want.Port), SrcAddr: ip(want.Local)}
	if err := s.write("add "+want.String(), func() error { return s.nl.LinkAdd(v) }); err != nil || s.dry {
		return 0, err
	}
	is, err := s.link(want.Name)
	if err != nil {
		return 0, err
	}
	if is == nil {
		return 0, fmt.Errorf("add link %s: it is gone again", want.Name)
	}
	return is.Attrs().Index, nil
}

// removeVXLAN deletes the overlay's link if there is one.
func (s *space) removeVXLAN(name string) error {
	is, err := s.link(name)
	if err != nil {
		return err
	}
	if _, ours := is.(*netlink.Vxlan); !ours {
		return nil
	}
	return s.deleteLink(name)
}

// deleteLink deletes the named link if there is one.
func (s *space) deleteLink(name string) error {
	is, err := s.link(name)
	if err != nil || is == nil {
		return err
	}
	return s.write("delete link "+name, func() error { return ignoreGone(s.nl.LinkDel(is)) })
}
