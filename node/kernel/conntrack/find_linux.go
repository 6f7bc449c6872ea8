package conntrack

import (
	"net/netip"

	"hythe.dev/hythe/node/proxy"
)

// Find returns the flow from src to dst, as its first packet had them, in the calling thread's network namespace. found is
// false if the kernel knows no such flow: it was never here, or is forgotten.
func Find(protocol proxy.Protocol, src, dst netip.AddrPort) (_ Entry, found bool, err error) {
	c, err := dial(0)
	if err != nil {
		return Entry{}, false, err
	}
	defer c.Close()
	entries, err := c.list(filter{six: dst.Addr().Is6(), dst: dst.Addr(), protocol: protocol, port: dst.Port()})
	if err != nil {
		return Entry{}, false, err
	}
	for _, e := range entries {
		// Old kernels list others too.
		if e.Protocol == protocol && e.Original.Src == src && e.Original.Dst == dst {
			return e, true, nil
		}
	}
	return Entry{}, false, nil
}
