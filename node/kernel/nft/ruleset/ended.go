package ruleset

import (
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// Ended is the element of one direction of a connection to reset.
func Ended(src, dst netip.AddrPort) nfnetlink.Element {
	port := func(p uint16) string { return string([]byte{byte(p >> 8), byte(p), 0, 0}) }
	return nfnetlink.Element{Set: EndedSet + Digit(dst.Addr()),
		Key: string(src.Addr().AsSlice()) + string(dst.Addr().AsSlice()) + port(src.Port()) + port(dst.Port())}
}

// ended resets the connections in EndedSet, whose entries in conntrack were deleted: so what they send comes here, as
// new or invalid. Who jumps here asks notSYN: a SYN is a connection of its own, and so is what follows it.
func ended() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "ended"}
	for _, f := range families() {
		c.Rules = append(c.Rules, say("its endpoint is gone", f.is(), f.connection(false), in(EndedSet+f.digit), count(EndpointGone), resetTCP()))
	}
	return c
}

// untrackedProbes keeps conntrack from the probes of ended connections (conntrack.Flows): it would take one for a
// connection from the Service, and its answer for a part of that. A window of zero is rare, and cheaper to look at.
func untrackedProbes() nfnetlink.Chain {
	return nfnetlink.Chain{Name: "raw-output", Kind: "filter", Hook: unix.NF_INET_LOCAL_OUT, Priority: -300, Rules: []nfnetlink.Rule{
		say("probe", protocol(unix.IPPROTO_TCP), marshal(
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 14, Len: 2, DestRegister: reg},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0, 0}}), jump("probes"))}}
}

func probes() nfnetlink.Chain {
	c := nfnetlink.Chain{Name: "probes"}
	for _, f := range families() {
		c.Rules = append(c.Rules, say("probe", f.is(), f.connection(true), in(EndedSet+f.digit), marshal(&expr.Notrack{})))
	}
	return c
}

// connection loads addresses and ports in the order of EndedSet, or those of the other direction.
func (f family) connection(reversed bool) [][]byte {
	src, dst, sport, dport := f.saddr, f.daddr, uint32(0), uint32(2)
	if reversed {
		src, dst, sport, dport = dst, src, dport, sport
	}
	ports := reg + 2*f.addr.Bytes/4
	return concat(f.load(src, reg), f.load(dst, f.after()), marshal(
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: sport, Len: 2, DestRegister: ports},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: dport, Len: 2, DestRegister: ports + 1}))
}

// notSYN matches TCP packets that begin no connection.
func notSYN() [][]byte {
	return concat(protocol(unix.IPPROTO_TCP), marshal(
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1, DestRegister: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{2}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0}}))
}
