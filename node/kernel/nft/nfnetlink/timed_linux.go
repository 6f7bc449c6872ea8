package nfnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A TimedElement is one of a dynamic set: it goes by itself.
type TimedElement struct {
	Key, Value string        // Value is empty but in a map
	Timeout    time.Duration // how long it is there since it was made, or was updated last
	Left       time.Duration // how long it is there from now on; 0 for all of Timeout
}

// NewTimedElements inserts elements of s, which is dynamic. Times are in whole milliseconds.
func NewTimedElements(s Set, elements []TimedElement) []netlink.Message {
	const each = 400 // less than maxElements bytes
	milliseconds := func(d time.Duration) []byte { return binary.BigEndian.AppendUint64(nil, uint64(d/time.Millisecond)) }
	var out []netlink.Message
	for some := range slices.Chunk(elements, each) {
		var a, list attrs
		for _, e := range some {
			list.nest(unix.NFTA_LIST_ELEM, func() {
				list.nest(unix.NFTA_SET_ELEM_KEY, func() { list.bytes(unix.NFTA_DATA_VALUE, []byte(e.Key)) })
				if e.Value != "" {
					list.nest(unix.NFTA_SET_ELEM_DATA, func() { list.bytes(unix.NFTA_DATA_VALUE, []byte(e.Value)) })
				}
				list.bytes(unix.NFTA_SET_ELEM_TIMEOUT, milliseconds(e.Timeout))
				if e.Left >= time.Millisecond {
					list.bytes(unix.NFTA_SET_ELEM_EXPIRATION, milliseconds(e.Left))
				}
			})
		}
		a.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		a.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		a.bytes(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list)
		out = append(out, message(unix.NFT_MSG_NEWSETELEM, netlink.Create, a))
	}
	return out
}

// TimedElements returns at most limit elements of s, which is dynamic. There are none if the kernel has no such set, or one of other types.
func (c Conn) TimedElements(s Set, limit int) ([]TimedElement, error) {
	if same, err := c.hasTypes(s); !same || err != nil {
		return nil, err
	}
	var a attrs
	a.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	a.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	messages, err := c.dump(unix.NFT_MSG_GETSETELEM, a)
	if err != nil {
		return nil, fmt.Errorf("read elements of %s: %w", s.Name, err)
	}
	var out []TimedElement
	for _, m := range messages {
		each(m.Data[4:], func(typ uint16, list []byte) {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			each(list, func(_ uint16, elem []byte) {
				if e := timedElement(elem); e.Left > 0 && len(out) < limit {
					out = append(out, e)
				}
			})
		})
	}
	return out, nil
}

func timedElement(b []byte) (e TimedElement) {
	each(b, func(typ uint16, data []byte) {
		switch {
		case typ == unix.NFTA_SET_ELEM_KEY:
			e.Key = datum(data)
		case typ == unix.NFTA_SET_ELEM_DATA:
			e.Value = datum(data)
		case len(data) != 8:
		case typ == unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = time.Duration(binary.BigEndian.Uint64(data)) * time.Millisecond
		case typ == unix.NFTA_SET_ELEM_EXPIRATION:
			e.Left = time.Duration(binary.BigEndian.Uint64(data)) * time.Millisecond
		}
	})
	return e
}

// hasTypes says whether the kernel has a set of the name of s, with keys and values of its types.
func (c Conn) hasTypes(s Set) (bool, error) {
	var a attrs
	a.text(unix.NFTA_SET_TABLE, TableName)
	a.text(unix.NFTA_SET_NAME, s.Name)
	messages, err := c.Execute(message(unix.NFT_MSG_GETSET, 0, a))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read set %s: %w", s.Name, err)
	}
	has := map[uint16]uint32{}
	for _, m := range messages {
		each(m.Data[4:], func(typ uint16, data []byte) {
			if len(data) == 4 {
				has[typ] = binary.BigEndian.Uint32(data)
			}
		})
	}
	same := has[unix.NFTA_SET_KEY_TYPE] == s.Key.magic() && has[unix.NFTA_SET_KEY_LEN] == s.Key.size()
	if s.isMap() {
		same = same && has[unix.NFTA_SET_DATA_TYPE] == s.Data.magic() && has[unix.NFTA_SET_DATA_LEN] == s.Data.size()
	}
	return same && s.isMap() == (has[unix.NFTA_SET_FLAGS]&unix.NFT_SET_MAP != 0), nil
}
