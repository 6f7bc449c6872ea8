package server

import (
	"unicode/utf8"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of DeltaDiscoveryRequest that hold names of resources (envoy/service/discovery/v3/discovery.proto).
const (
	subscribeField   = 3
	unsubscribeField = 4
	versionsField    = 5
)

// A codec is gRPC's own, but it leaves out names that are no UTF-8. Any client may say one as its server name; Envoy asks for it
// as it is, again on each new stream, and the message could not be read: one client would part Envoy from its gateway for good.
// They cannot be answered either, as Envoy does not read such a message; the client's connection is ended by its timeout.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal reads a message.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, ok := v.(*discoveryv3.DeltaDiscoveryRequest); !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	return c.CodecV2.Unmarshal(mem.BufferSlice{mem.SliceBuffer(readableNames(data.Materialize()))}, v)
}

// readableNames is a DeltaDiscoveryRequest without names that are no UTF-8. What it cannot read it leaves to others to complain
// about.
func readableNames(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for rest := raw; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return raw
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[n:])
		if size < 0 {
			return raw
		}
		if kind != protowire.BytesType || readable(number, rest[n:n+size]) {
			out = append(out, rest[:n+size]...)
		}
		rest = rest[n+size:]
	}
	return out
}

func readable(number protowire.Number, field []byte) bool {
	value, _ := protowire.ConsumeBytes(field)
	switch number {
	case subscribeField, unsubscribeField:
		return utf8.Valid(value)
	case versionsField: // an entry of a map, whose key is its field 1
		key, kind, n := protowire.ConsumeTag(value)
		if n < 0 || key != 1 || kind != protowire.BytesType {
			return true
		}
		name, n := protowire.ConsumeBytes(value[n:])
		return n < 0 || utf8.Valid(name)
	}
	return true
}
