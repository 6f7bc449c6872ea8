package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	vnetlink "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// addNodeAddress gives the namespace the node's address, on a veth whose other end is in it too.
func (s *space) addNodeAddress() error {
	return s.withLinks(func(h *vnetlink.Handle) error {
		if err := h.LinkAdd(&vnetlink.Veth{LinkAttrs: vnetlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0-peer"}); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "eth0-peer"} {
			l, err := h.LinkByName(name)
			if err != nil {
				return err
			}
			if err := h.LinkSetUp(l); err != nil {
				return err
			}
			if name == "eth0" {
				err = h.AddrAdd(l, &vnetlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 11), Mask: net.CIDRMask(24, 32)}})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *space) withLinks(f func(*vnetlink.Handle) error) error {
	fd, err := netns.GetFromName(s.name)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", s.name, err)
	}
	defer fd.Close()
	h, err := vnetlink.NewHandleAt(fd)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", s.name, err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		return fmt.Errorf("links of %s: %w", s.name, err)
	}
	return nil
}

// A ruleset looks at nftables in a namespace.
type ruleset struct{ conn *netlink.Conn }

func openRuleset(ns string) (ruleset, error) {
	fd, err := netns.GetFromName(ns)
	if err != nil {
		return ruleset{}, fmt.Errorf("open namespace %s: %w", ns, err)
	}
	defer fd.Close()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(fd)})
	if err != nil {
		return ruleset{}, fmt.Errorf("open nftables in %s: %w", ns, err)
	}
	_ = c.SetReadBuffer(64 << 20)
	return ruleset{c}, nil
}

func (r ruleset) close() { _ = r.conn.Close() }

func subsystem(typ uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ)
}

// generation is the number of transactions so far. To ask for it takes no lock of nftables.
func (r ruleset) generation() (uint32, error) {
	messages, err := r.conn.Execute(netlink.Message{Header: netlink.Header{Type: subsystem(unix.NFT_MSG_GETGEN), Flags: netlink.Request}, Data: []byte{unix.AF_UNSPEC, 0, 0, 0}})
	if err != nil {
		return 0, fmt.Errorf("read generation of nftables: %w", err)
	}
	for _, m := range messages {
		for typ, data := range attributes(m.Data[4:]) {
			if typ == unix.NFTA_GEN_ID {
				return binary.BigEndian.Uint32(data), nil
			}
		}
	}
	return 0, errors.New("read generation of nftables: there is none")
}

// count is the number of elements of a set; one that is not there has none.
func (r ruleset) count(family byte, table, set string) (int, error) {
	e := netlink.NewAttributeEncoder()
	e.String(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	e.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	data, err := e.Encode()
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", set, err)
	}
	messages, err := r.conn.Execute(netlink.Message{Header: netlink.Header{Type: subsystem(unix.NFT_MSG_GETSETELEM), Flags: netlink.Request | netlink.Dump},
		Data: append([]byte{family, 0, 0, 0}, data...)})
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", set, err)
	}
	n := 0
	for _, m := range messages {
		n += len(elements(m))
	}
	return n, nil
}

// attributes goes through attributes of netlink: type without flags, and content.
func attributes(data []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= 4 {
			n := int(binary.NativeEndian.Uint16(data))
			if n < 4 || n > len(data) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[4:n]) {
				return
			}
			data = data[min(len(data), (n+3)&^3):]
		}
	}
}

// elements are the elements in a message about a set.
func elements(m netlink.Message) [][]byte {
	var out [][]byte
	if len(m.Data) < 4 {
		return nil
	}
	for typ, list := range attributes(m.Data[4:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range attributes(list) {
			out = append(out, element)
		}
	}
	return out
}

// A sighting is when the kernel said that an element is there: one with an endpoint's address as its value, or one with
// a frontend as its key.
type sighting struct {
	addr     netip.Addr     // valid for an endpoint
	frontend netip.AddrPort // valid for a frontend
	at       time.Time
}

// watchElements tells of endpoints and frontends in new elements in the namespace, until the ruleset is closed. The time is
// that when the kernel's notification was read.
func watchElements(ns string, tell func(sighting)) (ruleset, error) {
	r, err := openRuleset(ns)
	if err != nil {
		return ruleset{}, err
	}
	if err := r.conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		r.close()
		return ruleset{}, fmt.Errorf("listen to nftables in %s: %w", ns, err)
	}
	go func() {
		for {
			messages, err := r.conn.Receive()
			at := time.Now()
			if errors.Is(err, unix.ENOBUFS) {
				continue
			}
			if err != nil {
				return
			}
			for _, m := range messages {
				if m.Header.Type != subsystem(unix.NFT_MSG_NEWSETELEM) {
					continue
				}
				for _, element := range elements(m) {
					one := sighting{at: at}
					if value := attribute(element, unix.NFTA_SET_ELEM_DATA); len(value) >= 4 {
						one.addr = netip.AddrFrom4([4]byte(value[:4]))
					}
					// address . protocol . port, each of which takes whole words
					if key := attribute(element, unix.NFTA_SET_ELEM_KEY); len(key) == 12 {
						one.frontend = netip.AddrPortFrom(netip.AddrFrom4([4]byte(key[:4])), binary.BigEndian.Uint16(key[8:]))
					}
					tell(one)
				}
			}
		}
	}()
	return r, nil
}

// attribute is the value in an attribute of an element; nil if it has none, or a verdict.
func attribute(element []byte, which uint16) []byte {
	for typ, data := range attributes(element) {
		if typ != which {
			continue
		}
		for typ, value := range attributes(data) {
			if typ == unix.NFTA_DATA_VALUE {
				return value
			}
		}
	}
	return nil
}
