package ruleset

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"hythe.dev/hythe/node/proxy"
)

// seed is that of all hashes. Nodes of all versions choose the same endpoint by it: it must never change.
const seed = 0x68797468

// Slot is the one that a chain with this Lead picks for a source, as the kernel's "jhash" does it
// (include/linux/jhash.h, reciprocal_scale of linux/kernel.h). known is false where the source does not tell: the choice
// is random, or the port is needed and is 0.
func (l Lead) Slot(source netip.AddrPort) (slot int, known bool) {
	key := source.Addr().AsSlice()
	switch {
	case l.By == proxy.Random || l.N < 1 || !source.Addr().IsValid():
		return 0, false
	case l.By == proxy.BySourcePort && l.Stay == 0:
		if source.Port() == 0 {
			return 0, false
		}
		key = append(binary.BigEndian.AppendUint16(key, source.Port()), 0, 0)
	}
	return int(uint64(jhash(key, seed)) * uint64(l.N) >> 32), true
}

// jhash is Jenkins' hash lookup3 as the kernel has it. The length of key is a multiple of four, and not zero.
func jhash(key []byte, initial uint32) uint32 {
	a := uint32(0xdeadbeef) + uint32(len(key)) + initial
	b, c := a, a
	word := func(i int) uint32 {
		if 4*i >= len(key) {
			return 0
		}
		return binary.NativeEndian.Uint32(key[4*i:])
	}
	for ; len(key) > 12; key = key[12:] {
		a, b, c = a+word(0), b+word(1), c+word(2)
		a = (a - c) ^ bits.RotateLeft32(c, 4)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 6)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 8)
		b += a
		a = (a - c) ^ bits.RotateLeft32(c, 16)
		c += b
		b = (b - a) ^ bits.RotateLeft32(a, 19)
		a += c
		c = (c - b) ^ bits.RotateLeft32(b, 4)
		b += a
	}
	a, b, c = a+word(0), b+word(1), c+word(2)
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
