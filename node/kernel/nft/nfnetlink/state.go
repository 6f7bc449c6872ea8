package nfnetlink

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// TableName is the one table, of family inet, that this package writes.
const TableName = "hythe"

// InterimName is the table that serves while TableName is replaced. It is there for moments.
const InterimName = "hythe-interim"

// Flags of a table, of linux/netfilter/nf_tables.h; golang.org/x/sys does not have them.
const (
	TableOwner   = 0x2 // the socket that makes it owns it: nobody else can change it
	TablePersist = 0x4 // it survives its owner's end
)

// Datatypes are the types of a concatenation. nft shows elements by them.
type Datatypes []nftables.SetDatatype

// magic is the number by which nft knows the concatenation.
func (d Datatypes) magic() uint32 {
	var m uint32
	for _, t := range d {
		m = m<<nftables.SetConcatTypeBits | t.GetNFTMagic()
	}
	return m
}

// size is the number of bytes: each part of a concatenation fills whole registers.
func (d Datatypes) size() uint32 {
	if len(d) == 1 {
		return d[0].Bytes
	}
	var n uint32
	for _, t := range d {
		n += (t.Bytes + 3) &^ 3
	}
	return n
}

// Text shows a value of these types.
func (d Datatypes) Text(value string) string {
	if len(value) != int(d.size()) {
		return fmt.Sprintf("%x", value)
	}
	var parts []string
	for _, t := range d {
		part := value[:t.Bytes]
		switch t.GetNFTMagic() {
		case nftables.TypeIPAddr.GetNFTMagic(), nftables.TypeIP6Addr.GetNFTMagic():
			a, _ := netip.AddrFromSlice([]byte(part))
			parts = append(parts, a.String())
		case nftables.TypeInetProto.GetNFTMagic():
			parts = append(parts, fmt.Sprint(part[0]))
		case nftables.TypeInetService.GetNFTMagic():
			parts = append(parts, fmt.Sprint(binary.BigEndian.Uint16([]byte(part))))
		case nftables.TypeMark.GetNFTMagic():
			parts = append(parts, fmt.Sprint(binary.NativeEndian.Uint32([]byte(part))))
		default:
			parts = append(parts, strings.TrimRight(part, "\x00"))
		}
		value = value[min(len(value), int((t.Bytes+3)&^3)):]
	}
	return strings.Join(parts, " . ")
}

// A Set is a named set, or a map if it has Verdicts or Data.
type Set struct {
	Name     string
	Key      Datatypes
	Data     Datatypes
	Verdicts bool // its values are chains to go to
	Words    *Words
	Interval bool
	Dynamic  bool   // rules put elements in, and they go by themselves
	Room     uint32 // how many elements a dynamic one takes
}

// Words are for a map of Data whose values stand for names of chains. A map of verdicts would do, but the kernel goes through all
// elements of all those in each transaction that adds one (nft_table_validate).
type Words struct {
	Word func(name string) string
	Name func(word string) string
}

// concatenated says whether the set holds ranges of concatenations. Each part of such an element is a range of its own.
func (s Set) concatenated() bool { return s.Interval && len(s.Key) > 1 }

func (s Set) isMap() bool { return s.Verdicts || s.Data != nil }

// A Chain with a Kind ("nat", "filter") hangs at a Hook (NF_INET_*).
type Chain struct {
	Name     string
	Kind     string
	Hook     uint32
	Priority int32
	Rules    []Rule
}

// A Rule is a list of expressions, each in its netlink form, with a comment that nft shows.
type Rule struct {
	Comment string
	Exprs   [][]byte
}

// An Element names an element of a set by its key, in the kernel's form. In an interval set Key is the first address
// and End the first one that is no longer in it, empty if there is none; in one of concatenations End is the last key.
type Element struct {
	Set, Key, End string
}

// Contents are elements with their values, in the kernel's form: in a verdict map the name of a chain, in one with Words
// the name that a word stands for, empty in a plain set.
type Contents map[Element]string

// A KernelTable is the table itself as the kernel has it.
type KernelTable struct {
	Exists  bool
	Flags   uint32
	Owner   uint32 // the netlink port of the owner, 0 if there is none
	Comment string
}

// A KernelRule is a rule as the kernel has it.
type KernelRule struct {
	Comment string
	exprs   []byte // a list of attributes, one for each expression
}

// A KernelChain is a chain of any table as the kernel has it. Those of iptables-nft are among them.
type KernelChain struct {
	Family string // as nft writes it: "ip", "inet"
	Table  string
	Name   string
	// Hook is where the kernel enters a base chain, "forward" for example; empty for other chains.
	Hook string
	// Drop says that a base chain drops what none of its rules decides.
	Drop bool
}

// A KernelCounter is a counter object of the table.
type KernelCounter struct {
	Name           string
	Packets, Bytes uint64
}
