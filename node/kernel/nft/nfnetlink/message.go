package nfnetlink

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes and flags of linux/netfilter/nf_tables.h that golang.org/x/sys does not have.
const (
	attrTableUserData = 6
	attrTableOwner    = 7
	attrObjTable      = 1
	attrObjName       = 2
	attrObjType       = 3
	attrObjData       = 4
	attrSetConcat     = 2  // NFTA_SET_DESC_CONCAT
	attrFieldLen      = 1  // NFTA_SET_FIELD_LEN
	attrElemKeyEnd    = 10 // NFTA_SET_ELEM_KEY_END
	attrTypeMask      = 0x3fff
	setConcat         = 0x80       // NFT_SET_CONCAT
	setEval           = 0x20       // NFT_SET_EVAL
	verdictGoto       = 0xfffffffc // NFT_GOTO, -4
)

// attrs is a list of netlink attributes in the making.
type attrs []byte

func (a *attrs) bytes(typ uint16, data []byte) {
	*a = binary.NativeEndian.AppendUint16(*a, uint16(unix.SizeofNlAttr+len(data)))
	*a = binary.NativeEndian.AppendUint16(*a, typ)
	*a = append(*a, data...)
	for len(*a)%unix.NLA_ALIGNTO != 0 {
		*a = append(*a, 0)
	}
}

// text adds a string with the trailing zero that nftables expects.
func (a *attrs) text(typ uint16, s string) { a.bytes(typ, append([]byte(s), 0)) }

func (a *attrs) be32(typ uint16, v uint32) { a.bytes(typ, binary.BigEndian.AppendUint32(nil, v)) }

// nest adds an attribute made of what fill adds.
func (a *attrs) nest(typ uint16, fill func()) {
	start := len(*a)
	a.bytes(typ|unix.NLA_F_NESTED, nil)
	fill()
	binary.NativeEndian.PutUint16((*a)[start:], uint16(len(*a)-start))
}

// each calls f with the type and the data of each attribute of b, and stops at what is none.
func each(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[unix.SizeofNlAttr:size])
		b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
}

// message makes a request about the family inet.
func message(typ uint16, flags netlink.HeaderFlags, a attrs) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ),
			Flags: netlink.Request | flags,
		},
		Data: append(generic(unix.NFPROTO_INET, 0), a...),
	}
}

// generic is struct nfgenmsg.
func generic(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// NewTable makes a table, or changes the flags of one that is there.
func NewTable(name, comment string, flags uint32) netlink.Message {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, name)
	a.be32(unix.NFTA_TABLE_FLAGS, flags)
	a.bytes(attrTableUserData, userdata.AppendString(nil, userdata.TypeComment, comment))
	return message(unix.NFT_MSG_NEWTABLE, netlink.Create, a)
}

// Retable makes messages about TableName messages about another table: all name theirs in their first attribute.
func Retable(messages []netlink.Message, name string) []netlink.Message {
	const header = 4 // struct nfgenmsg
	old := (unix.SizeofNlAttr + len(TableName) + 1 + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
	out := make([]netlink.Message, len(messages))
	for i, m := range messages {
		var first attrs
		first.text(binary.NativeEndian.Uint16(m.Data[header+2:]), name)
		out[i] = netlink.Message{Header: m.Header, Data: slices.Concat(m.Data[:header], first, m.Data[header+old:])}
	}
	return out
}

// DeleteTable deletes a table with all that is in it.
func DeleteTable(name string) netlink.Message {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, name)
	return message(unix.NFT_MSG_DELTABLE, 0, a)
}

// NewSet makes a set; id is its number in the transaction, not 0.
func NewSet(s Set, id uint32) netlink.Message {
	var flags uint32
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.concatenated() {
		flags |= setConcat
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_TIMEOUT | setEval
	}
	if s.isMap() {
		flags |= unix.NFT_SET_MAP
	}
	var a attrs
	a.text(unix.NFTA_SET_TABLE, TableName)
	a.text(unix.NFTA_SET_NAME, s.Name)
	a.be32(unix.NFTA_SET_FLAGS, flags)
	a.be32(unix.NFTA_SET_KEY_TYPE, s.Key.magic())
	a.be32(unix.NFTA_SET_KEY_LEN, s.Key.size())
	switch {
	case s.Verdicts:
		a.be32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		a.be32(unix.NFTA_SET_DATA_LEN, 16) // NFT_REG_SIZE
	case s.isMap():
		a.be32(unix.NFTA_SET_DATA_TYPE, s.Data.magic())
		a.be32(unix.NFTA_SET_DATA_LEN, s.Data.size())
	}
	a.be32(unix.NFTA_SET_ID, id)
	switch {
	case s.concatenated():
		a.nest(unix.NFTA_SET_DESC, func() { a.fields(s.Key) })
	case s.Dynamic:
		a.nest(unix.NFTA_SET_DESC, func() { a.be32(unix.NFTA_SET_DESC_SIZE, s.Room) })
	}
	var order []byte
	if s.Key.magic() == nftables.TypeIFName.GetNFTMagic() {
		// nft shows names only if it is told that they are in the machine's byte order.
		order = userdata.AppendUint32(order, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, 1)
	}
	if s.Words != nil {
		order = userdata.AppendUint32(order, userdata.NFTNL_UDATA_SET_DATABYTEORDER, 1)
	}
	if order != nil {
		a.bytes(unix.NFTA_SET_USERDATA, order)
	}
	return message(unix.NFT_MSG_NEWSET, netlink.Create, a)
}

// fields says how long the parts of a concatenation are, in bytes.
func (a *attrs) fields(key Datatypes) {
	a.nest(attrSetConcat, func() {
		for _, t := range key {
			a.nest(unix.NFTA_LIST_ELEM, func() { a.be32(attrFieldLen, t.Bytes) })
		}
	})
}

// NewChain makes a chain and its rules.
func NewChain(c Chain) []netlink.Message {
	out := []netlink.Message{newChain(c)}
	for _, r := range c.Rules {
		out = append(out, newRule(c.Name, r))
	}
	return out
}

// DeleteChain deletes a chain with its rules. Nothing may lead there.
func DeleteChain(name string) netlink.Message {
	var a attrs
	a.text(unix.NFTA_CHAIN_TABLE, TableName)
	a.text(unix.NFTA_CHAIN_NAME, name)
	return message(unix.NFT_MSG_DELCHAIN, 0, a)
}

func newChain(c Chain) netlink.Message {
	var a attrs
	a.text(unix.NFTA_CHAIN_TABLE, TableName)
	a.text(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Kind != "" {
		a.nest(unix.NFTA_CHAIN_HOOK, func() {
			a.be32(unix.NFTA_HOOK_HOOKNUM, c.Hook)
			a.be32(unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
		})
		a.text(unix.NFTA_CHAIN_TYPE, c.Kind)
	}
	return message(unix.NFT_MSG_NEWCHAIN, netlink.Create, a)
}

func newRule(chain string, r Rule) netlink.Message {
	var a attrs
	a.text(unix.NFTA_RULE_TABLE, TableName)
	a.text(unix.NFTA_RULE_CHAIN, chain)
	a.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		for _, e := range r.Exprs {
			a.bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e)
		}
	})
	a.bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.Comment))
	return message(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, a)
}

// maxElements is how many bytes of elements go into one message: an attribute's length has 16 bits.
const maxElements = 60_000

// NewElements inserts elements of s with their values; an empty value is none.
func NewElements(s Set, elements []Element, values []string) []netlink.Message {
	return elementMessages(unix.NFT_MSG_NEWSETELEM, s, elements, values)
}

// DeleteElements removes elements of s.
func DeleteElements(s Set, elements []Element) []netlink.Message {
	return elementMessages(unix.NFT_MSG_DELSETELEM, s, elements, nil)
}

// elementMessages returns the messages of type typ (NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM) for elements of s.
func elementMessages(typ uint16, s Set, elements []Element, values []string) []netlink.Message {
	var flags netlink.HeaderFlags
	if typ == unix.NFT_MSG_NEWSETELEM {
		flags = netlink.Create
	}
	var out []netlink.Message
	for len(elements) > 0 {
		var list attrs
		n := 0
		for n < len(elements) && len(list) < maxElements {
			value := ""
			if values != nil {
				value = values[n]
			}
			list.element(s, elements[n], value)
			n++
		}
		var a attrs
		a.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		a.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		a.bytes(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
		out = append(out, message(typ, flags, a))
		elements = elements[n:]
		if values != nil {
			values = values[n:]
		}
	}
	return out
}

// element adds one element; an empty value is none.
func (a *attrs) element(s Set, e Element, value string) {
	a.nest(unix.NFTA_LIST_ELEM, func() {
		a.nest(unix.NFTA_SET_ELEM_KEY, func() { a.bytes(unix.NFTA_DATA_VALUE, []byte(e.Key)) })
		if s.concatenated() {
			a.nest(attrElemKeyEnd, func() { a.bytes(unix.NFTA_DATA_VALUE, []byte(e.End)) })
		}
		if value == "" {
			return
		}
		a.nest(unix.NFTA_SET_ELEM_DATA, func() {
			switch {
			case s.Verdicts:
				a.verdict(value)
			case s.Words != nil:
				a.bytes(unix.NFTA_DATA_VALUE, []byte(s.Words.Word(value)))
			default:
				a.bytes(unix.NFTA_DATA_VALUE, []byte(value))
			}
		})
	})
	if e.End == "" || s.concatenated() {
		return
	}
	a.nest(unix.NFTA_LIST_ELEM, func() {
		a.be32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		a.nest(unix.NFTA_SET_ELEM_KEY, func() { a.bytes(unix.NFTA_DATA_VALUE, []byte(e.End)) })
	})
}

// verdict is to go to a chain.
func (a *attrs) verdict(chain string) {
	a.nest(unix.NFTA_DATA_VERDICT, func() {
		a.be32(unix.NFTA_VERDICT_CODE, verdictGoto)
		a.text(unix.NFTA_VERDICT_CHAIN, chain)
	})
}

// NewCounter makes a counter object.
func NewCounter(name string) netlink.Message {
	var a attrs
	a.text(attrObjTable, TableName)
	a.text(attrObjName, name)
	a.be32(attrObjType, unix.NFT_OBJECT_COUNTER)
	a.nest(attrObjData, func() {})
	return message(unix.NFT_MSG_NEWOBJ, netlink.Create, a)
}

// OriginalCt is the expression that loads a conntrack key (NFT_CT_*), as it was in the flow's first packet, into a
// register. The library's conntrack expression has no direction for addresses.
func OriginalCt(key, register uint32) []byte {
	var a attrs
	a.text(unix.NFTA_EXPR_NAME, "ct")
	a.nest(unix.NFTA_EXPR_DATA, func() {
		a.be32(unix.NFTA_CT_KEY, key)
		a.be32(unix.NFTA_CT_DREG, register)
		a.bytes(unix.NFTA_CT_DIRECTION, []byte{0})
	})
	return a
}
