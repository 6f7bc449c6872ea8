package nfnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Table looks at the table alone, without what is in it.
func (c Conn) Table() (KernelTable, error) {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, TableName)
	tables, err := c.Execute(message(unix.NFT_MSG_GETTABLE, 0, a))
	if errors.Is(err, unix.ENOENT) {
		return KernelTable{}, nil
	}
	if err != nil {
		return KernelTable{}, fmt.Errorf("read table %s: %w", TableName, err)
	}
	f := KernelTable{Exists: true}
	for _, m := range tables {
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch {
			case typ == unix.NFTA_TABLE_FLAGS && len(data) == 4:
				f.Flags = binary.BigEndian.Uint32(data)
			case typ == attrTableOwner && len(data) == 4:
				f.Owner = binary.BigEndian.Uint32(data)
			case typ == attrTableUserData:
				f.Comment, _ = userdata.GetString(data, userdata.TypeComment)
			}
		})
	}
	return f, nil
}

// Rules returns the rules of each chain of the table, in order.
func (c Conn) Rules() (map[string][]KernelRule, error) {
	var a attrs
	a.text(unix.NFTA_RULE_TABLE, TableName)
	messages, err := c.dump(unix.NFT_MSG_GETRULE, a)
	if err != nil {
		return nil, fmt.Errorf("read rules of table %s: %w", TableName, err)
	}
	out := map[string][]KernelRule{}
	for _, m := range messages {
		var table, chain string
		var r KernelRule
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				table = zeroEnded(data)
			case unix.NFTA_RULE_CHAIN:
				chain = zeroEnded(data)
			case unix.NFTA_RULE_EXPRESSIONS:
				r.exprs = data
			case unix.NFTA_RULE_USERDATA:
				r.Comment, _ = userdata.GetString(data, userdata.TypeComment)
			}
		})
		if table == TableName {
			out[chain] = append(out[chain], r)
		}
	}
	return out, nil
}

// Dropping says whether a chain of the table drops what passed its rules.
func (c Conn) Dropping() (bool, error) {
	messages, err := c.dump(unix.NFT_MSG_GETCHAIN, nil)
	if err != nil {
		return false, fmt.Errorf("read chains of table %s: %w", TableName, err)
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
		found = found || drops && table == TableName
	}
	return found, nil
}

// Elements adds the elements of s to into.
func (c Conn) Elements(s Set, into Contents) error {
	var a attrs
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	messages, err := c.dump(unix.NFT_MSG_GETSETELEM, a)
	if err != nil {
		return fmt.Errorf("read elements of %s: %w", s.Name, err)
	}
	var starts, ends []string
	add := func(key, keyEnd, value string, end bool) {
		if s.Words != nil {
			value = s.Words.Name(value)
		}
		switch {
		case s.concatenated():
			into[Element{Set: s.Name, Key: key, End: keyEnd}] = value
		case !s.Interval:
			into[Element{Set: s.Name, Key: key}] = value
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
		e := Element{Set: s.Name, Key: start}
		for len(ends) > 0 && ends[0] <= start {
			ends = ends[1:]
		}
		if len(ends) > 0 {
			e.End = ends[0]
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

// Count is the number of elements of a set, 0 if there is no such set.
func (c Conn) Count(s Set) (int, error) {
	var a attrs
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	messages, err := c.dump(unix.NFT_MSG_GETSETELEM, a)
	if err != nil {
		return 0, fmt.Errorf("read elements of %s: %w", s.Name, err)
	}
	n := 0
	for _, m := range messages {
		eachElement(m, func(_, _, _ string, end bool) {
			if !end {
				n++
			}
		})
	}
	return n, nil
}

// Exists says whether the table is there.
func (c Conn) Exists() (bool, error) { return c.Has(unix.NFPROTO_INET, TableName, "") }

// Has says whether a table, or a chain of it unless chain is empty, is there. family is NFPROTO_*.
func (c Conn) Has(family byte, table, chain string) (bool, error) {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, table)
	typ := uint16(unix.NFT_MSG_GETTABLE)
	if chain != "" {
		typ = unix.NFT_MSG_GETCHAIN
		a.text(unix.NFTA_CHAIN_NAME, chain)
	}
	m := message(typ, 0, a)
	m.Data[0] = family
	_, err := c.Execute(m)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// MaxGet is how many elements are asked for at once.
const MaxGet = 256

// Get returns the values of at most MaxGet elements of a set, up to the first that is not there. In an interval set a key is there if an
// interval has it.
func (c Conn) Get(name string, keys []string) ([]string, error) {
	var list attrs
	for _, key := range keys {
		list.element(Set{}, Element{Key: key}, "")
	}
	var a attrs
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, name)
	a.bytes(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
	sent, err := c.Send(message(unix.NFT_MSG_GETSETELEM, netlink.Acknowledge, a))
	if err != nil {
		return nil, fmt.Errorf("get element of %s: %w", name, err)
	}
	var values []string
	for {
		replies, err := c.Receive()
		if errors.Is(err, unix.ENOENT) {
			// Without a table or set there is nothing in it either.
			return values, nil
		}
		if err != nil {
			return nil, fmt.Errorf("get element of %s: %w", name, err)
		}
		for _, m := range replies {
			switch {
			case m.Header.Sequence != sent.Header.Sequence:
			case m.Header.Type == netlink.Error: // the acknowledgement
				return values, nil
			default:
				eachElement(m, func(_, _, value string, end bool) {
					if !end {
						values = append(values, value)
					}
				})
			}
		}
	}
}

// Chains lists the chains of all tables of the network namespace, in the kernel's order.
func (c Conn) Chains() ([]KernelChain, error) {
	request := message(unix.NFT_MSG_GETCHAIN, netlink.Dump, nil)
	request.Data = generic(unix.NFPROTO_UNSPEC, 0)
	messages, err := c.Execute(request)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []KernelChain
	for _, m := range messages {
		if len(m.Data) < 4 {
			continue
		}
		k := KernelChain{Family: FamilyName(m.Data[0])}
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_CHAIN_TABLE:
				k.Table = zeroEnded(data)
			case unix.NFTA_CHAIN_NAME:
				k.Name = zeroEnded(data)
			case unix.NFTA_CHAIN_HOOK:
				k.Hook = hookName(data)
			case unix.NFTA_CHAIN_POLICY:
				k.Drop = len(data) == 4 && binary.BigEndian.Uint32(data) == 0 // NF_DROP
			}
		})
		out = append(out, k)
	}
	return out, nil
}

// familyNames and hookNames are nft's words for NFPROTO_* and NF_INET_*.
var (
	familyNames = map[byte]string{
		unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev",
		unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV6: "ip6",
	}
	hookNames = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
)

// FamilyName is nft's word for NFPROTO_*: "ip", "inet".
func FamilyName(family byte) string { return familyNames[family] }

func hookName(nested []byte) string {
	name := ""
	each(nested, func(typ uint16, data []byte) {
		if typ == unix.NFTA_HOOK_HOOKNUM && len(data) == 4 {
			if n := binary.BigEndian.Uint32(data); int(n) < len(hookNames) {
				name = hookNames[n]
			}
		}
	})
	return name
}

// Counters reads the counter objects of the table, in the kernel's order; none where there is no table.
func (c Conn) Counters() ([]KernelCounter, error) {
	var a attrs
	a.text(attrObjTable, TableName)
	messages, err := c.dump(unix.NFT_MSG_GETOBJ, a)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read counters of table %s: %w", TableName, err)
	}
	var out []KernelCounter
	for _, m := range messages {
		if k, ok := parseCounter(m); ok {
			out = append(out, k)
		}
	}
	return out, nil
}

// parseCounter reads a counter of the table.
func parseCounter(m netlink.Message) (KernelCounter, bool) {
	if len(m.Data) < 4 {
		return KernelCounter{}, false
	}
	var k KernelCounter
	table := ""
	each(m.Data[4:], func(typ uint16, data []byte) {
		switch typ {
		case attrObjTable:
			table = zeroEnded(data)
		case attrObjName:
			k.Name = zeroEnded(data)
		case attrObjData:
			each(data, func(typ uint16, data []byte) {
				switch {
				case len(data) != 8:
				case typ == unix.NFTA_COUNTER_PACKETS:
					k.Packets = binary.BigEndian.Uint64(data)
				case typ == unix.NFTA_COUNTER_BYTES:
					k.Bytes = binary.BigEndian.Uint64(data)
				}
			})
		}
	})
	return k, table == TableName
}
