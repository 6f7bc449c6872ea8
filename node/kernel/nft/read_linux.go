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
	whole    bool // the skeleton is there, and is ours
	picks    map[string]bool
	contents contents
}

// read looks at all of the table.
func (c conn) read() (found, error) {
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
	says := ""
	for _, m := range tables {
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch {
			case typ == unix.NFTA_TABLE_FLAGS && len(data) == 4:
				f.flags = binary.BigEndian.Uint32(data)
			case typ == attrTableUserData:
				says, _ = userdata.GetString(data, userdata.TypeComment)
			}
		})
	}
	if says != comment() {
		return f, nil
	}
	rules, err := c.readRules()
	if err != nil {
		return found{}, err
	}
	if f.whole = f.recognise(rules); !f.whole {
		return f, nil
	}
	for _, s := range sets() {
		if err := c.readElements(s, f.contents); err != nil {
			return found{}, err
		}
	}
	return f, nil
}

// readRules returns the comments of the rules of each chain, in order.
func (c conn) readRules() (map[string][]string, error) {
	var a attrs
	a.text(unix.NFTA_RULE_TABLE, tableName)
	messages, err := c.dump(unix.NFT_MSG_GETRULE, a)
	if err != nil {
		return nil, fmt.Errorf("read rules of table %s: %w", tableName, err)
	}
	out := map[string][]string{}
	for _, m := range messages {
		var table, chain, comment string
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				table = zeroEnded(data)
			case unix.NFTA_RULE_CHAIN:
				chain = zeroEnded(data)
			case unix.NFTA_RULE_USERDATA:
				comment, _ = userdata.GetString(data, userdata.TypeComment)
			}
		})
		if table == tableName {
			out[chain] = append(out[chain], comment)
		}
	}
	return out, nil
}

func zeroEnded(b []byte) string { return string(bytes.TrimSuffix(b, []byte{0})) }

// recognise says whether rules are the skeleton's, and notes the chains of picks that are there.
func (f *found) recognise(rules map[string][]string) bool {
	same := func(c chain) bool {
		return slices.EqualFunc(c.rules, rules[c.name], func(r rule, comment string) bool { return r.comment == comment })
	}
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
	add := func(key, value string, end bool) {
		switch {
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

// eachElement calls add with each element of a reply: its key, its value, and whether it ends an interval.
func eachElement(m netlink.Message, add func(key, value string, end bool)) {
	each(m.Data[4:], func(typ uint16, list []byte) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		each(list, func(_ uint16, elem []byte) {
			var key, value string
			var end bool
			each(elem, func(typ uint16, data []byte) {
				switch typ {
				case unix.NFTA_SET_ELEM_KEY:
					key = datum(data)
				case unix.NFTA_SET_ELEM_DATA:
					value = datum(data)
				case unix.NFTA_SET_ELEM_FLAGS:
					end = len(data) == 4 && binary.BigEndian.Uint32(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
				}
			})
			add(key, value, end)
		})
	})
}

// datum is a value, or a verdict in the form of contents.
func datum(b []byte) string {
	out := ""
	each(b, func(typ uint16, data []byte) {
		if typ == unix.NFTA_DATA_VALUE {
			out = string(data)
			return
		}
		each(data, func(typ uint16, data []byte) {
			switch {
			case typ == unix.NFTA_VERDICT_CHAIN:
				out = zeroEnded(data)
			case len(data) == 4 && binary.BigEndian.Uint32(data) == verdictDrop:
				out = dropVerdict
			}
		})
	})
	return out
}
