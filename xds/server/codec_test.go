package server

import (
	"maps"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// TestCodec reads names that are no UTF-8: the message is that without them.
func TestCodec(t *testing.T) {
	raw, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: "type", ResponseNonce: "7", InitialResourceVersions: map[string]string{"h.test": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"h.test", "\xff\xfe.test", "ü.test"} {
		raw = protowire.AppendTag(raw, subscribeField, protowire.BytesType)
		raw = protowire.AppendString(raw, name)
		raw = protowire.AppendTag(raw, unsubscribeField, protowire.BytesType)
		raw = protowire.AppendString(raw, name)
	}
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "\xff")
	raw = protowire.AppendBytes(protowire.AppendTag(raw, versionsField, protowire.BytesType), entry)
	got := new(discoveryv3.DeltaDiscoveryRequest)
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, got); err != nil {
		t.Fatal(err)
	}
	want := []string{"h.test", "ü.test"}
	if got.GetTypeUrl() != "type" || got.GetResponseNonce() != "7" || !slices.Equal(got.GetResourceNamesSubscribe(), want) ||
		!slices.Equal(got.GetResourceNamesUnsubscribe(), want) || !maps.Equal(got.GetInitialResourceVersions(), map[string]string{"h.test": "1"}) {
		t.Errorf("read %v", got)
	}
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer("\xff")}, got); err == nil {
		t.Error("what is no message was read")
	}
}
