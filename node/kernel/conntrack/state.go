package conntrack

import (
	"fmt"
	"net/netip"

	"hythe.dev/hythe/node/proxy"
)

// An Entry is a flow as conntrack has it. Reply is where its answers come from and go to: where Reply.Src is not
// Original.Dst, the destination is translated.
type Entry struct {
	Protocol        proxy.Protocol
	Original, Reply Tuple
	ID              uint32
	Zone            uint16
	// Over says that both ends of a TCP connection have closed it.
	Over bool
}

// A Tuple is one direction of a flow.
type Tuple struct {
	Src, Dst netip.AddrPort
}

// String is "udp 192.0.2.1:5000 -> 10.96.0.10:53 = 10.244.1.2:53".
func (e Entry) String() string {
	return fmt.Sprintf("%s %s -> %s = %s", e.Protocol, e.Original.Src, e.Original.Dst, e.Reply.Src)
}

// translated says whether the destination was changed.
func (e Entry) translated() bool { return e.Reply.Src != e.Original.Dst }
