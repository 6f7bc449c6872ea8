package arp

import (
	"errors"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// A mac is an Ethernet address that can be a map key.
type mac [6]byte

var broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// macOf converts an Ethernet address; any other becomes zero.
func macOf(hw net.HardwareAddr) (m mac) {
	if len(hw) == len(m) {
		copy(m[:], hw)
	}
	return m
}

// A message is an ARP packet for IPv4 on Ethernet with the header of its frame.
type message struct {
	dst, src             mac // of the frame
	op                   arp.Operation
	senderMAC, targetMAC mac
	senderIP, targetIP   netip.Addr
}

var errFrame = errors.New("parse ARP frame: malformed, or not a request or reply for IPv4 on Ethernet")

const (
	headerLen = 14
	packetLen = 28
)

// parse reads a frame. The lengths are checked before the codec sees it, which believes them. A sender that is a group
// or nobody cannot be answered, and is no host that uses an address (RFC 826 knows neither).
func parse(frame []byte) (message, error) {
	if len(frame) < headerLen+packetLen || frame[headerLen+4] != 6 || frame[headerLen+5] != 4 {
		return message{}, errFrame
	}
	if ethernet.EtherType(uint16(frame[12])<<8|uint16(frame[13])) != ethernet.EtherTypeARP {
		return message{}, errFrame
	}
	var p arp.Packet
	if err := p.UnmarshalBinary(frame[headerLen : headerLen+packetLen]); err != nil {
		return message{}, errFrame
	}
	if p.HardwareType != 1 || p.ProtocolType != uint16(ethernet.EtherTypeIPv4) {
		return message{}, errFrame
	}
	if p.Operation != arp.OperationRequest && p.Operation != arp.OperationReply {
		return message{}, errFrame
	}
	if sender := macOf(p.SenderHardwareAddr); sender == (mac{}) || sender[0]&1 != 0 {
		return message{}, errFrame
	}
	return message{
		dst: mac(frame[0:6]), src: mac(frame[6:12]), op: p.Operation,
		senderMAC: macOf(p.SenderHardwareAddr), senderIP: p.SenderIP,
		targetMAC: macOf(p.TargetHardwareAddr), targetIP: p.TargetIP,
	}, nil
}

// encode makes the frame of a message. It builds a packet of its own: the pinned codec must not marshal what it
// has unmarshalled.
func (m message) encode() ([]byte, error) {
	p, err := arp.NewPacket(m.op, m.senderMAC[:], m.senderIP, m.targetMAC[:], m.targetIP)
	if err != nil {
		return nil, err
	}
	body, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := ethernet.Frame{Destination: m.dst[:], Source: m.src[:], EtherType: ethernet.EtherTypeARP, Payload: body}
	return f.MarshalBinary()
}

// probe asks who uses addr without telling an address of its own (RFC 5227 section 1.1).
func probe(self mac, addr netip.Addr) message {
	return message{dst: broadcast, src: self, op: arp.OperationRequest, senderMAC: self, senderIP: netip.IPv4Unspecified(), targetIP: addr}
}

// announcements are the two gratuitous forms (RFC 5944 section 4.6): some receivers heed only one.
func announcements(self mac, addr netip.Addr) []message {
	request := message{dst: broadcast, src: self, op: arp.OperationRequest, senderMAC: self, senderIP: addr, targetIP: addr}
	reply := request
	reply.op, reply.targetMAC = arp.OperationReply, self
	return []message{request, reply}
}

// answer is the reply to a request.
func answer(self mac, m message) message {
	return message{
		dst: m.senderMAC, src: self, op: arp.OperationReply,
		senderMAC: self, senderIP: m.targetIP, targetMAC: m.senderMAC, targetIP: m.senderIP,
	}
}
