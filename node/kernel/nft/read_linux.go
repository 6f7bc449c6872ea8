package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// found is what the kernel holds of the table.
type found struct {
	exists   bool
	flags    uint32
	owner    uint32 // the netlink port of the owner, 0 if there is none
	says     string // the table's comment
	whole    bool   // the skeleton is there, and is ours
	picks    map[string]bool
	contents contents
}

// readTable looks at the table alone.
func (c conn) readTable() (found, error) {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, tableName)
	tables, err := c.Execute(message(unix.NFT_MSG_GETTABLE, 0, a))
	if errors.Is(err, unix.ENOENT) {
		return found{}, nil
	}
	if err != nil {
		return found{}, fmt.Errorf("read table %s: %w", tableName, err)
	}
	f := found{exists: true, picks: map[string]bool{}, contents: contents{}}
	for _, m := range tables {
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch {
			case typ == unix.NFTA_TABLE_FLAGS && len(data) == 4:
				f.flags = binary.BigEndian.Uint32(data)
			case typ == attrTableOwner && len(data) == 4:
				f.owner = binary.BigEndian.Uint32(data)
			case typ == attrTableUserData:
				f.says, _ = userdata.GetString(data, userdata.TypeComment)
			}
		})
	}
	return f, nil
}

// read looks at all of the table.
func (c conn) read() (found, error) {
	f, err := c.readTable()
	if err != nil || !f.exists || f.says != comment(version()) {
		return f, err
	}
	rules, err := c.readRules()
	if err != nil {
		return found{}, err
	}
	drops, err := c.dropping()
	if err != nil {
		return found{}, err
	}
	if f.whole = !drops && f.recognise(rules); !f.whole {
		return f, nil
	}
	for _, s := range sets() {
		if s.dynamic {
			continue
		}
		if err := c.readElements(s, f.contents); err != nil {
			return found{}, err
		}
	}
	return f, nil
}

// A kernelRule is a rule as the kernel has it.
type kernelRule struct {
	comment string
	exprs   []byte // a list of attributes, one for each expression
}

// readRules returns the rules of each chain, in order.
func (c conn) readRules() (map[string][]kernelRule, error) {
	var a attrs
	a.text(unix.NFTA_RULE_TABLE, tableName)
	messages, err := c.dump(unix.NFT_MSG_GETRULE, a)
	if err != nil {
		return nil, fmt.Errorf("read rules of table %s: %w", tableName, err)
	}
	out := map[string][]kernelRule{}
	for _, m := range messages {
		var table, chain string
		var r kernelRule
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				table = zeroEnded(data)
			case unix.NFTA_RULE_CHAIN:
				chain = zeroEnded(data)
			case unix.NFTA_RULE_EXPRESSIONS:
				r.exprs = data
			case unix.NFTA_RULE_USERDATA:
				r.comment, _ = userdata.GetString(data, userdata.TypeComment)
			}
		})
		if table == tableName {
			out[chain] = append(out[chain], r)
		}
	}
	return out, nil
}

// is says whether the kernel's rule is r: all that r says of each expression is there.
func (k kernelRule) is(r rule) bool {
	var have [][]byte
	each(k.exprs, func(_ uint16, expr []byte) { have = append(have, expr) })
	return k.comment == r.comment && slices.EqualFunc(have, r.exprs, func(have, want []byte) bool { return says(have, want) })
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
	return w >= reg && (w-reg)%4 == 0 && h == unix.NFT_REG_1+(w-reg)/4 || typ == unix.NFTA_NAT_FLAGS && h&w == w
}

// nested says whether b is made of attributes.
func nested(b []byte) bool {
	size := 0
	each(b, func(_ uint16, data []byte) {
		size += (unix.SizeofNlAttr + len(data) + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
	})
	return size > 0 && size >= len(b)
}

// dropping says whether a chain of the table drops what passed its rules.
func (c conn) dropping() (bool, error) {
	messages, err := c.dump(unix.NFT_MSG_GETCHAIN, nil)
	if err != nil {
		return false, fmt.Errorf("read chains of table %s: %w", tableName, err)
	}
	found := false
	for _, m := range messages {
		table, drops := "", false
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_CHAIN_TABLE:
				table = zeroEnded(data)
			case unix.NFTA_CHAIN_POLICY:
				drops = len(data) == 4 && binary.BigEndian.Uint32(data) == 0 // NF_DROP
			}
		})
		found = found || drops && table == tableName
	}
	return found, nil
}

func zeroEnded(b []byte) string { return string(bytes.TrimSuffix(b, []byte{0})) }

// recognise says whether rules are the skeleton's, and notes the chains of picks that are there.
func (f *found) recognise(rules map[string][]kernelRule) bool {
	same := func(c chain) bool { return slices.EqualFunc(rules[c.name], c.rules, kernelRule.is) }
	ours := map[string]bool{}
	for _, c := range chains() {
		ours[c.name] = true
		if !same(c) {
			return false
		}
	}
	for name := range rules {
		if ours[name] {
			continue
		}
		c, known := pickChainNamed(name)
		if !known || !same(c) {
			return false
		}
		f.picks[name] = true
	}
	return true
}

// readElements adds the elements of s to into.
func (c conn) readElements(s set, into contents) error {
	var a attrs
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, s.name)
	messages, err := c.dump(unix.NFT_MSG_GETSETELEM, a)
	if err != nil {
		return fmt.Errorf("read elements of %s: %w", s.name, err)
	}
	var starts, ends []string
	add := func(key, keyEnd, value string, end bool) {
		switch {
		case s.concatenated():
			into[element{set: s.name, key: key, end: keyEnd}] = value
		case !s.interval:
			into[element{set: s.name, key: key}] = value
		case end:
			ends = append(ends, key)
		default:
			starts = append(starts, key)
		}
	}
	for _, m := range messages {
		eachElement(m, add)
	}
	// Intervals do not overlap, so each ends where the next end is. An end at zero is the kernel's own mark.
	slices.Sort(starts)
	slices.Sort(ends)
	for _, start := range starts {
		e := element{set: s.name, key: start}
		for len(ends) > 0 && ends[0] <= start {
			ends = ends[1:]
		}
		if len(ends) > 0 {
			e.end = ends[0]
		}
		into[e] = ""
	}
	return nil
}

// eachElement calls add with each element of a reply: its key, the last key that it is for where that is another one,
// its value, and whether it ends an interval.
func eachElement(m netlink.Message, add func(key, keyEnd, value string, end bool)) {
	each(m.Data[4:], func(typ uint16, list []byte) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		each(list, func(_ uint16, elem []byte) {
			var key, keyEnd, value string
			var end bool
			each(elem, func(typ uint16, data []byte) {
				switch typ {
				case unix.NFTA_SET_ELEM_KEY:
					key = datum(data)
				case attrElemKeyEnd:
					keyEnd = datum(data)
				case unix.NFTA_SET_ELEM_DATA:
					value = datum(data)
				case unix.NFTA_SET_ELEM_FLAGS:
					end = len(data) == 4 && binary.BigEndian.Uint32(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
				}
			})
			add(key, keyEnd, value, end)
		})
	})
}

// datum is a value, or the chain that a verdict leads to.
func datum(b []byte) string {
	out := ""
	each(b, func(typ uint16, data []byte) {
		if typ == unix.NFTA_DATA_VALUE {
			out = string(data)
			return
		}
		each(data, func(typ uint16, data []byte) {
			if typ == unix.NFTA_VERDICT_CHAIN {
				out = zeroEnded(data)
			}
		})
	})
	return out
}
