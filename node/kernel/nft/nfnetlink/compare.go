package nfnetlink

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Is says whether the kernel's rule is r: all that r says of each expression is there.
func (k KernelRule) Is(r Rule) bool {
	var have [][]byte
	each(k.exprs, func(_ uint16, expr []byte) { have = append(have, expr) })
	return k.Comment == r.Comment && slices.EqualFunc(have, r.Exprs, func(have, want []byte) bool { return says(have, want) })
}

// says reports whether the attributes of want are in have. The kernel adds what it takes for granted or leaves
// it out, ends texts with a zero, and calls a 32-bit register by the name of the 128-bit one that it begins (NFT_REG32_00 is NFT_REG_1).
func says(have, want []byte) bool {
	there := map[uint16][]byte{}
	each(have, func(typ uint16, data []byte) { there[typ] = data })
	all := true
	each(want, func(typ uint16, data []byte) {
		is, known := there[typ]
		if !known && len(bytes.Trim(data, "\x00")) == 0 {
			return
		}
		all = all && known && (same(typ, is, data) || nested(data) && says(is, data))
	})
	return all
}

// same says whether two values are one: texts, numbers of any length, and registers.
func same(typ uint16, have, want []byte) bool {
	if zeroEnded(have) == zeroEnded(want) || bytes.Equal(bytes.TrimLeft(have, "\x00"), bytes.TrimLeft(want, "\x00")) {
		return true
	}
	if len(have) != 4 || len(want) != 4 {
		return false
	}
	h, w := binary.BigEndian.Uint32(have), binary.BigEndian.Uint32(want)
	// The kernel adds to the flags of a translation that there is an address.
	return w >= unix.NFT_REG32_00 && (w-unix.NFT_REG32_00)%4 == 0 && h == unix.NFT_REG_1+(w-unix.NFT_REG32_00)/4 || typ == unix.NFTA_NAT_FLAGS && h&w == w
}

// nested says whether b is made of attributes.
func nested(b []byte) bool {
	size := 0
	each(b, func(_ uint16, data []byte) {
		size += (unix.SizeofNlAttr + len(data) + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
	})
	return size > 0 && size >= len(b)
}

func zeroEnded(b []byte) string { return string(bytes.TrimSuffix(b, []byte{0})) }
