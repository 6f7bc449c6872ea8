package members

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// The wire form: all numbers are big endian.
//
//	magic "HYB1", boot 8, sequence 8, heard 8, heard 8, hold in ms 4, flags 1,
//	node length 1, node, MAC count 1, MACs 6 each,
//	VIP count 2, VIPs {flags 1, generation 8, address 4 or 16},
//	HMAC-SHA256 of all that, 32
const (
	magic = "HYB1"
	// MaxVIPs bounds the VIPs of a heartbeat, so that it fits into one UDP datagram.
	MaxVIPs  = 2048
	maxMACs  = 16
	maxName  = 253
	macLen   = 6
	maxHold  = time.Hour
	maxBytes = 64 << 10
	fixedLen = len(magic) + 4*8 + 4 + 1
)

const (
	flagLeaving = 1 << 0

	flagOwned    = 1 << 0
	flagHealthy  = 1 << 1
	flagDraining = 1 << 2
	flagBlocked  = 1 << 3
	flagIPv6     = 1 << 7
)

// MinKeyBytes is the shortest key that is accepted.
const MinKeyBytes = 16

// Keys authenticate heartbeats. The first one signs, all are accepted: for a rotation first add the new key
// below on all nodes, then put it first, then remove the old one.
type Keys [][]byte

// ReadKeys reads a key file: one key a line, of at least MinKeyBytes bytes; empty lines are skipped.
func ReadKeys(path string) (Keys, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read heartbeat key: %w", err)
	}
	var keys Keys
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(line) < MinKeyBytes {
			return nil, fmt.Errorf("read heartbeat key: a key in %s is shorter than %d bytes", path, MinKeyBytes)
		}
		keys = append(keys, bytes.Clone(line))
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read heartbeat key: %s is empty", path)
	}
	return keys, nil
}

func sign(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// Encode makes the signed wire form of h.
func (k Keys) Encode(h Heartbeat) ([]byte, error) {
	if len(k) == 0 {
		return nil, errors.New("encode heartbeat: no key")
	}
	if len(h.Node) == 0 || len(h.Node) > maxName || len(h.MACs) > maxMACs || len(h.VIPs) > MaxVIPs {
		return nil, fmt.Errorf("encode heartbeat: %d bytes of name, %d MACs or %d VIPs are too many or none", len(h.Node), len(h.MACs), len(h.VIPs))
	}
	b := append(make([]byte, 0, 512), magic...)
	for _, n := range [...]uint64{h.Boot, h.Sequence, h.Heard[0], h.Heard[1]} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(h.Hold, 0), maxHold)/time.Millisecond))
	b = append(b, bit(h.Leaving, flagLeaving), byte(len(h.Node)))
	b = append(b, h.Node...)
	b = append(b, byte(len(h.MACs)))
	for _, m := range h.MACs {
		if len(m) != macLen {
			return nil, fmt.Errorf("encode heartbeat: MAC %s is no Ethernet address", m)
		}
		b = append(b, m...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.VIPs)))
	for _, v := range h.VIPs {
		b = append(b, bit(v.Owned, flagOwned)|bit(v.Healthy, flagHealthy)|bit(v.Draining, flagDraining)|
			bit(v.Blocked, flagBlocked)|bit(v.Addr.Is6(), flagIPv6))
		b = binary.BigEndian.AppendUint64(b, v.Generation)
		b = append(b, v.Addr.AsSlice()...)
	}
	return append(b, sign(k[0], b)...), nil
}

func bit(on bool, flag byte) byte {
	if on {
		return flag
	}
	return 0
}

var (
	errAuth    = errors.New("decode heartbeat: not signed with a known key")
	errMessage = errors.New("decode heartbeat: malformed")
)

// Decode checks the signature and reads the wire form. Nothing is read before the signature is good.
func (k Keys) Decode(data []byte) (Heartbeat, error) {
	if len(data) > maxBytes || len(data) < fixedLen+sha256.Size {
		return Heartbeat{}, errMessage
	}
	body, mac := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	good := false
	for _, key := range k {
		good = hmac.Equal(sign(key, body), mac) || good
	}
	if !good {
		return Heartbeat{}, errAuth
	}
	return decodeBody(body)
}

// decodeBody reads a signed message. The signature does not make it well formed: a node of another version may
// have sent it.
func decodeBody(b []byte) (Heartbeat, error) {
	r := reader{b: b}
	if string(r.take(len(magic))) != magic {
		return Heartbeat{}, errMessage
	}
	h := Heartbeat{Boot: r.uint64(), Sequence: r.uint64(), Heard: [2]uint64{r.uint64(), r.uint64()}}
	h.Hold = time.Duration(r.uint32()) * time.Millisecond
	h.Leaving = r.byte()&flagLeaving != 0
	h.Node = strings.Clone(string(r.take(int(r.byte()))))
	for range min(int(r.byte()), maxMACs+1) {
		h.MACs = append(h.MACs, net.HardwareAddr(bytes.Clone(r.take(macLen))))
	}
	n := int(r.uint16())
	if r.failed || h.Node == "" || len(h.Node) > maxName || len(h.MACs) > maxMACs || n > MaxVIPs || h.Hold > maxHold {
		return Heartbeat{}, errMessage
	}
	for range n {
		flags, generation, size := r.byte(), r.uint64(), 4
		if flags&flagIPv6 != 0 {
			size = 16
		}
		a, _ := netip.AddrFromSlice(r.take(size))
		if r.failed || a.Is4In6() || len(h.VIPs) > 0 && !h.VIPs[len(h.VIPs)-1].Addr.Less(a) {
			return Heartbeat{}, errMessage
		}
		h.VIPs = append(h.VIPs, VIP{
			Addr: a, Generation: generation,
			Owned: flags&flagOwned != 0, Healthy: flags&flagHealthy != 0,
			Draining: flags&flagDraining != 0, Blocked: flags&flagBlocked != 0,
		})
	}
	if len(r.b) != 0 {
		return Heartbeat{}, errMessage
	}
	return h, nil
}

// A reader takes bytes from the front of b; after it ran short it only gives zeros.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
