package localhost

import (
	"cmp"
	"fmt"
	"net/netip"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// A Listener is a loopback address and port.
type Listener struct {
	Addr     netip.AddrPort
	Protocol proxy.Protocol
}

// String is "127.0.0.1:30080 tcp".
func (l Listener) String() string { return fmt.Sprintf("%s %s", l.Addr, l.Protocol) }

// Compare orders listeners by address, port and protocol.
func (l Listener) Compare(o Listener) int {
	return cmp.Or(l.Addr.Compare(o.Addr), cmp.Compare(l.Protocol, o.Protocol))
}

// Backends are the endpoints behind a Listener.
type Backends struct {
	// Endpoints get new connections; sorted, not empty.
	Endpoints []netip.AddrPort
	// Keep are further ones whose connections go on.
	Keep []netip.AddrPort
	// Sticky says that all clients, which have one address, come to one endpoint.
	Sticky bool
	// Reset says that TCP connections to endpoints that are gone are reset.
	Reset bool
	// Owner is the Service.
	Owner model.Key
}

// State is all that is served.
type State map[Listener]Backends
