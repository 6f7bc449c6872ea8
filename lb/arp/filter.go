package arp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
)

// maxFiltered bounds the addresses in the kernel's filter (it takes 4096 instructions). With more of them all
// ARP is passed and the table sorts it.
const maxFiltered = 1000

// Offsets in an untagged Ethernet frame.
const (
	offEtherType = 12
	offSenderIP  = headerLen + 14
	offTargetIP  = headerLen + 24
)

// filter makes a program that passes ARP whose sender or target address is one of addrs. The kernel also drops
// frames that this host sent itself and those of VLANs, which belong to another interface.
func filter(addrs []netip.Addr, kernel bool) []bpf.Instruction {
	drop := bpf.RetConstant{Val: 0}
	pass := bpf.RetConstant{Val: 1 << 16}
	var prog []bpf.Instruction
	if kernel {
		const outgoing = 4 // PACKET_OUTGOING of linux/if_packet.h
		prog = append(prog,
			bpf.LoadExtension{Num: bpf.ExtType},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: outgoing, SkipTrue: 1}, drop,
			bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}, drop,
		)
	}
	prog = append(prog,
		bpf.LoadAbsolute{Off: offEtherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0806, SkipTrue: 1}, drop,
	)
	if len(addrs) > maxFiltered {
		return append(prog, pass)
	}
	for _, off := range [...]uint32{offSenderIP, offTargetIP} {
		prog = append(prog, bpf.LoadAbsolute{Off: off, Size: 4})
		for _, a := range addrs {
			b := a.As4()
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[:]), SkipTrue: 1}, pass)
		}
	}
	return append(prog, drop)
}
