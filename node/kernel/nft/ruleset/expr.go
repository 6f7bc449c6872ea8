package ruleset

import (
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// say makes a rule of parts.
func say(comment string, parts ...[][]byte) nfnetlink.Rule {
	r := nfnetlink.Rule{Comment: comment}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	return r
}

// marshal turns expressions into their netlink form. The expressions are constants of this package: that they can be
// marshalled does not depend on any input.
func marshal(exprs ...expr.Any) [][]byte {
	out := make([][]byte, len(exprs))
	for i, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			panic(fmt.Sprintf("marshal nftables expression %T: %v", e, err))
		}
		out[i] = b
	}
	return out
}

// reg is the first of the 32-bit registers; a concatenation uses it and those after it.
const reg = unix.NFT_REG32_00

// A family is what differs between IPv4 and IPv6.
type family struct {
	digit        string // ends the names of sets and chains
	proto        byte   // NFPROTO_IPV4 or NFPROTO_IPV6
	addr         nftables.SetDatatype
	saddr, daddr uint32 // offsets in the header
	icmp, echo   byte   // protocol and type of an echo request
	ctDst        uint32 // the conntrack key of the original destination
	loopback     []byte // a prefix of addresses that are the host's own affair
}

func families() []family {
	return []family{
		{"4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16, unix.IPPROTO_ICMP, 8, unix.NFT_CT_DST_IP, []byte{127}},
		{"6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24, unix.IPPROTO_ICMPV6, 128, unix.NFT_CT_DST_IP6,
			[]byte{15: 1}},
	}
}

// after is the register that follows an address which is loaded into reg.
func (f family) after() uint32 { return reg + f.addr.Bytes/4 }

// is matches packets of the family.
func (f family) is() [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{f.proto}})
}

// load puts the source or destination address (by its offset) into a register.
func (f family) load(offset, register uint32) [][]byte {
	return marshal(&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.addr.Bytes,
		DestRegister: register})
}

// from and to match packets whose source or destination is in a set.
func (f family) from(set string) [][]byte { return concat(f.is(), f.load(f.saddr, reg), in(set)) }
func (f family) to(set string) [][]byte   { return concat(f.is(), f.load(f.daddr, reg), in(set)) }

// fromUnspecified matches packets whose source is the unspecified address.
func (f family) fromUnspecified() [][]byte {
	return concat(f.load(f.saddr, reg), marshal(&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: make([]byte, f.addr.Bytes)}))
}

// notLoopback matches packets that do not go to a loopback address.
func (f family) notLoopback() [][]byte {
	return concat(f.is(), marshal(
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.daddr, Len: uint32(len(f.loopback)), DestRegister: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: f.loopback}))
}

// toNodePorts matches packets to an address of this node at which NodePorts are served.
func (f family) toNodePorts() [][]byte {
	return concat(f.notLoopback(), f.load(f.daddr, reg), in(NodePortRangesSet+f.digit), toThisNode())
}

// toLoopback and fromLoopback match packets whose destination or source is a loopback address.
func (f family) toLoopback() [][]byte   { return f.loopbackAt(f.daddr) }
func (f family) fromLoopback() [][]byte { return f.loopbackAt(f.saddr) }

func (f family) loopbackAt(offset uint32) [][]byte {
	return concat(f.is(), marshal(
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(f.loopback)), DestRegister: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: f.loopback}))
}

// echoRequest matches ICMP echo requests.
func (f family) echoRequest() [][]byte {
	return concat(f.is(), protocol(f.icmp), marshal(
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{f.echo}}))
}

// originallyTo matches flows whose first packet came in with a destination in a set.
func (f family) originallyTo(set string) [][]byte {
	return concat(f.originalDestination(), in(set))
}

// originalDestination loads the destination that the flow's first packet came in with.
func (f family) originalDestination() [][]byte { return [][]byte{nfnetlink.OriginalCt(f.ctDst, reg)} }

// dnat translates to the address in a register and, if there is one, the port in another.
func (f family) dnat(addr, port uint32) [][]byte {
	return marshal(&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: addr, RegProtoMin: port,
		Specified: port != 0})
}

func concat(parts ...[][]byte) [][]byte { return say("", parts...).Exprs }

// in matches if what reg begins is in a set.
func in(set string) [][]byte { return marshal(&expr.Lookup{SourceRegister: reg, SetName: set}) }

// inFrom matches if what a register begins is in a set.
func inFrom(set string, register uint32) [][]byte {
	return marshal(&expr.Lookup{SourceRegister: register, SetName: set})
}

// lookupTo puts into one register what a map has for what another one begins, or ends the rule.
func lookupTo(name string, from, to uint32) [][]byte {
	return marshal(&expr.Lookup{SourceRegister: from, SetName: name, DestRegister: to, IsDestRegSet: true})
}

// update puts an element into a dynamic map, from what the registers key and data begin, or gives it its time anew. A map
// that is full takes no more: the rule ends there.
func update(name string, key, data uint32, timeout time.Duration) [][]byte {
	return marshal(&expr.Dynset{SrcRegKey: key, SrcRegData: data, SetName: name, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout})
}

// forget removes an element from a dynamic map. An update would keep the old value.
func forget(name string, key, data uint32) [][]byte {
	const opDelete = 2 // NFT_DYNSET_OP_DELETE
	return marshal(&expr.Dynset{SrcRegKey: key, SrcRegData: data, SetName: name, Operation: opDelete})
}

// notIn matches if what reg begins is not in a set.
func notIn(set string) [][]byte {
	return marshal(&expr.Lookup{SourceRegister: reg, SetName: set, Invert: true})
}

// lookup replaces what reg begins by what a map has for it, or ends the rule.
func lookup(name string) [][]byte {
	return marshal(&expr.Lookup{SourceRegister: reg, SetName: name, DestRegister: reg, IsDestRegSet: true})
}

// vmapFrom goes where a verdict map says for what a register begins, or ends the rule.
func vmapFrom(name string, register uint32) [][]byte {
	return marshal(&expr.Lookup{SourceRegister: register, SetName: name, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
}

// protocolPort loads protocol and destination port into two registers.
func protocolPort(register uint32) [][]byte {
	return concat(l4proto(register), destinationPort(register+1))
}

func l4proto(register uint32) [][]byte {
	return marshal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
}

func destinationPort(register uint32) [][]byte {
	return marshal(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: register})
}

// protocolOriginalPort loads protocol and the destination port that the flow's first packet came in with.
func protocolOriginalPort() [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: reg + 1, Direction: 0})
}

// random loads a number from 0 to n-1.
func random(register, n uint32) [][]byte {
	return marshal(&expr.Numgen{Register: register, Modulus: n, Type: unix.NFT_NG_RANDOM})
}

// hash loads a number from 0 to n-1, the same on all nodes, from length bytes of the registers that from begins.
func hash(from, length, register, n uint32) [][]byte {
	return marshal(&expr.Hash{SourceRegister: from, Length: length, DestRegister: register, Modulus: n, Seed: seed, Type: expr.HashTypeJenkins})
}

// sourcePort loads the source port.
func sourcePort(register uint32) [][]byte {
	return marshal(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2, DestRegister: register})
}

func protocol(p byte) [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{p}})
}

// toThisNode matches packets to an address of this node.
func toThisNode() [][]byte {
	return marshal(
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: native(unix.RTN_LOCAL)})
}

// fromElsewhere matches packets whose source this node would not reach by the interface that they came in by.
func fromElsewhere() [][]byte {
	return marshal(
		&expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0}})
}

// inByPod matches packets that a pod of this node sent. The overlay's own name begins like those of the pods.
func inByPod() [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte(link.PodPrefix)},
		&expr.Lookup{SourceRegister: reg, SetName: OverlaysSet, Invert: true})
}

// inByOther matches packets that came in by another interface than that of this name.
func inByOther(name string) [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte(InterfaceName(name))})
}

// ctBits matches if one of the bits of a conntrack key is set.
func ctBits(key expr.CtKey, bits uint32) [][]byte {
	return marshal(
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(bits), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: native(0)})
}

func state(bits uint32) [][]byte { return ctBits(expr.CtKeySTATE, bits) }

// translated matches flows whose destination was changed (IPS_DST_NAT).
func translated() [][]byte { return ctBits(expr.CtKeySTATUS, 1<<5) }

// outByPrefix matches packets that leave by an interface whose name begins so.
func outByPrefix(prefix string) [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte(prefix)})
}

// outBy matches packets that leave by an interface of this name.
func outBy(name string) [][]byte { return outByPrefix(InterfaceName(name)) }

// outByAny matches packets that leave by an interface in a set, or by one that is not in it.
func outByAny(set string, member bool) [][]byte {
	return marshal(
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: set, Invert: !member})
}

func jump(chain string) [][]byte { return verdict(expr.VerdictJump, chain) }
func goTo(chain string) [][]byte { return verdict(expr.VerdictGoto, chain) }
func accept() [][]byte           { return verdict(expr.VerdictAccept, "") }
func drop() [][]byte             { return verdict(expr.VerdictDrop, "") }

func verdict(kind expr.VerdictKind, chain string) [][]byte {
	return marshal(&expr.Verdict{Kind: kind, Chain: chain})
}

// masquerade takes a random source port: two flows at the same moment would else often choose the same.
func masquerade() [][]byte { return marshal(&expr.Masq{FullyRandom: true}) }

func resetTCP() [][]byte { return marshal(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}) }

func portUnreachable() [][]byte {
	return marshal(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
}

// count adds the packet to the counter of a reason.
func count(reason string) [][]byte {
	return marshal(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: reason})
}
