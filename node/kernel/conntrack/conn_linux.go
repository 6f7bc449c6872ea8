package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/proxy"
)

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	messageGet    = 1 // IPCTNL_MSG_CT_GET
	messageDelete = 2 // IPCTNL_MSG_CT_DELETE
	messageStats  = 4 // IPCTNL_MSG_CT_GET_STATS_CPU

	attrStatsInsertFailed = 9 // CTA_STATS_INSERT_FAILED; then DROP, EARLY_DROP
	attrStatsDrop         = 10
	attrStatsEarlyDrop    = 11

	attrOriginal = 1  // CTA_TUPLE_ORIG
	attrReply    = 2  // CTA_TUPLE_REPLY
	attrProtocol = 4  // CTA_PROTOINFO
	attrID       = 12 // CTA_ID
	attrZone     = 18 // CTA_ZONE
	attrFilter   = 25 // CTA_FILTER

	attrFilterOriginal = 1 // CTA_FILTER_ORIG_FLAGS
	attrFilterReply    = 2 // CTA_FILTER_REPLY_FLAGS

	attrTupleIP    = 1 // CTA_TUPLE_IP
	attrTupleProto = 2 // CTA_TUPLE_PROTO
	attrIPv4Src    = 1 // CTA_IP_V4_SRC; then V4_DST, V6_SRC, V6_DST
	attrProtoNum   = 1 // CTA_PROTO_NUM
	attrSrcPort    = 2 // CTA_PROTO_SRC_PORT
	attrDstPort    = 3 // CTA_PROTO_DST_PORT

	attrProtocolTCP = 1 // CTA_PROTOINFO_TCP
	attrTCPState    = 1 // CTA_PROTOINFO_TCP_STATE
	stateTimeWait   = 7 // TCP_CONNTRACK_TIME_WAIT; then CLOSE

	// Flags of net/netfilter/nf_internals.h: which parts of a tuple a filter looks at. Kernels before 5.8 know no
	// filter and list all.
	filterSrc     = 1 << 0
	filterDst     = 1 << 1
	filterProto   = 1 << 3
	filterSrcPort = 1 << 4
	filterDstPort = 1 << 5
)

// A conn is a netlink socket to conntrack.
type conn struct{ *netlink.Conn }

func dial(netns int) (conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return conn{}, fmt.Errorf("open netlink socket: %w", err)
	}
	_ = c.SetReadBuffer(4 << 20) // best effort
	return conn{c}, nil
}

func message(typ uint16, flags netlink.HeaderFlags, six bool, fill func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	fill(ae)
	attrs, err := ae.Encode()
	family := byte(unix.AF_INET)
	if six {
		family = unix.AF_INET6
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | typ), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...), // struct nfgenmsg
	}, err
}

// list returns the entries that a filter asks for. Old kernels may return others too.
func (c conn) list(f filter) ([]Entry, error) {
	m, err := message(messageGet, netlink.Dump, f.six, f.encode)
	if err != nil {
		return nil, fmt.Errorf("list conntrack: %w", err)
	}
	for try := 0; ; try++ {
		replies, err := c.Execute(m)
		if errors.Is(err, unix.EINTR) && try < 10 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list conntrack: %w", err)
		}
		entries := make([]Entry, 0, len(replies))
		for _, r := range replies {
			if e, ok := parse(r.Data); ok {
				entries = append(entries, e)
			}
		}
		return entries, nil
	}
}

func (f filter) encode(ae *netlink.AttributeEncoder) {
	f = f.listed()
	flags, replyFlags := uint32(filterProto), uint32(filterProto|filterSrcPort)
	if !f.endpoint.Addr().IsUnspecified() {
		replyFlags |= filterSrc
	}
	ae.Nested(attrOriginal, func(ae *netlink.AttributeEncoder) error {
		if f.dst.IsValid() {
			flags |= filterDst
			ae.Nested(attrTupleIP, func(ae *netlink.AttributeEncoder) error {
				ae.Bytes(dstAttr(f.six), f.dst.AsSlice())
				return nil
			})
		}
		ae.Nested(attrTupleProto, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(attrProtoNum, uint8(f.protocol))
			if f.port != 0 {
				flags |= filterDstPort
				ae.Uint16(attrDstPort, f.port)
			}
			return nil
		})
		return nil
	})
	if f.endpoint.IsValid() {
		f.encodeEndpoint(ae)
	}
	ae.Nested(attrFilter, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(attrFilterOriginal, binary.NativeEndian.AppendUint32(nil, flags))
		if f.endpoint.IsValid() {
			ae.Bytes(attrFilterReply, binary.NativeEndian.AppendUint32(nil, replyFlags))
		}
		return nil
	})
}

// encodeEndpoint asks for flows whose answers come from an endpoint.
func (f filter) encodeEndpoint(ae *netlink.AttributeEncoder) {
	ae.Nested(attrReply, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(attrTupleIP, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(srcAttr(f.six), f.endpoint.Addr().AsSlice())
			return nil
		})
		ae.Nested(attrTupleProto, func(ae *netlink.AttributeEncoder) error {
			ae.Uint8(attrProtoNum, uint8(f.protocol))
			ae.Uint16(attrSrcPort, f.endpoint.Port())
			return nil
		})
		return nil
	})
}

func srcAttr(six bool) uint16 {
	if six {
		return attrIPv4Src + 2
	}
	return attrIPv4Src
}

func dstAttr(six bool) uint16 { return srcAttr(six) + 1 }

// remove deletes one entry. That it is gone already is fine.
func (c conn) remove(e Entry) error {
	six := e.Original.Src.Addr().Is6()
	m, err := message(messageDelete, netlink.Acknowledge, six, func(ae *netlink.AttributeEncoder) {
		ae.Nested(attrOriginal, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(attrTupleIP, func(ae *netlink.AttributeEncoder) error {
				ae.Bytes(srcAttr(six), e.Original.Src.Addr().AsSlice())
				ae.Bytes(dstAttr(six), e.Original.Dst.Addr().AsSlice())
				return nil
			})
			ae.Nested(attrTupleProto, func(ae *netlink.AttributeEncoder) error {
				ae.Uint8(attrProtoNum, uint8(e.Protocol))
				ae.Uint16(attrSrcPort, e.Original.Src.Port())
				ae.Uint16(attrDstPort, e.Original.Dst.Port())
				return nil
			})
			return nil
		})
		ae.Uint32(attrID, e.ID)
		if e.Zone != 0 {
			ae.Uint16(attrZone, e.Zone)
		}
	})
	if err == nil {
		_, err = c.Execute(m)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete conntrack entry %s: %w", e, err)
	}
	return nil
}

// parse reads the attributes of an entry, which follow struct nfgenmsg. It passes over what has no ports.
func parse(b []byte) (Entry, bool) {
	if len(b) < 4 {
		return Entry{}, false
	}
	ad, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return Entry{}, false
	}
	ad.ByteOrder = binary.BigEndian
	var e Entry
	for ad.Next() {
		switch ad.Type() {
		case attrOriginal:
			ad.Nested(e.tuple(&e.Original))
		case attrReply:
			ad.Nested(e.tuple(&e.Reply))
		case attrProtocol:
			ad.Nested(e.protocol)
		case attrID:
			e.ID = ad.Uint32()
		case attrZone:
			e.Zone = ad.Uint16()
		}
	}
	return e, ad.Err() == nil && e.Original.Dst.IsValid() && e.Original.Src.IsValid() && e.Reply.Src.IsValid()
}

// protocol reads what is known of a TCP connection.
func (e *Entry) protocol(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() != attrProtocolTCP {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				if ad.Type() == attrTCPState {
					state := ad.Uint8()
					e.Over = state == stateTimeWait || state == stateTimeWait+1
				}
			}
			return nil
		})
	}
	return nil
}

// tuple reads one direction into t.
func (e *Entry) tuple(t *Tuple) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		var src, dst netip.Addr
		var srcPort, dstPort uint16
		for ad.Next() {
			switch ad.Type() {
			case attrTupleIP:
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					for ad.Next() {
						a, _ := netip.AddrFromSlice(ad.Bytes())
						switch ad.Type() {
						case srcAttr(a.Is6()):
							src = a
						case dstAttr(a.Is6()):
							dst = a
						}
					}
					return nil
				})
			case attrTupleProto:
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					for ad.Next() {
						switch ad.Type() {
						case attrProtoNum:
							e.Protocol = proxy.Protocol(ad.Uint8())
						case attrSrcPort:
							srcPort = ad.Uint16()
						case attrDstPort:
							dstPort = ad.Uint16()
						}
					}
					return nil
				})
			}
		}
		*t = Tuple{netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)}
		return nil
	}
}
