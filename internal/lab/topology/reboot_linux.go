package topology

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// Reboot replaces the namespace of a machine on the LAN by a fresh one with the same cable: its kernel forgets all. Who
// still works in the old namespace stays there, without a cable.
func Reboot(p Plan, role string) error {
	name := NamespaceName(p.Lab, role)
	n := slices.IndexFunc(p.Namespaces, func(ns Namespace) bool { return ns.Name == name })
	c := slices.IndexFunc(p.Cables, func(c Cable) bool { return c.B.Namespace == name })
	if n < 0 || c < 0 {
		return fmt.Errorf("reboot %s: no such machine on the LAN", role)
	}
	cable := p.Cables[c]
	if err := Unplug(cable.A); err != nil {
		return err
	}
	if err := DeleteNamespace(name); err != nil {
		return err
	}
	if err := makeNamespace(p.Namespaces[n]); err != nil {
		return err
	}
	if err := plug(cable); err != nil {
		return fmt.Errorf("plug %s of %s into %s: %w", cable.B.Interface, name, cable.A.Namespace, err)
	}
	deadline := time.Now().Add(upWithin)
	return errors.Join(waitUp(cable.A.Namespace, cable.A.Interface, deadline), waitUp(name, cable.B.Interface, deadline))
}

// Unplug removes an end of a cable, and the other end with it. One that is not there is no error.
func Unplug(e End) error {
	h, err := handle(e.Namespace)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(e.Interface)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("unplug %s in %s: %w", e.Interface, e.Namespace, err)
	}
	return nil
}
