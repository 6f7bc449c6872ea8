package cni

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// String is the leases for people: those in use by address, then those at rest.
func (l *Leases) String() string {
	var b strings.Builder
	sorted := slices.SortedFunc(slices.Values(l.Leases), func(a, b Lease) int {
		return slices.CompareFunc(a.Addresses, b.Addresses, netip.Addr.Compare)
	})
	for _, e := range sorted {
		words := make([]string, 0, len(e.Addresses))
		for _, a := range e.Addresses {
			words = append(words, a.String())
		}
		fmt.Fprintf(&b, "lease %s container %s interface %s link %s\n", strings.Join(words, " "), e.ContainerID, e.IfName, HostName(e.Request))
		for _, p := range e.HostPorts {
			fmt.Fprintf(&b, "  host port %s\n", p)
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(l.Freed), netip.Addr.Compare) {
		fmt.Fprintf(&b, "freed %s at %s after boot\n", a, time.Duration(l.Freed[a]).Round(time.Second))
	}
	return b.String()
}
