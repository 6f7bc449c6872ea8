package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// A spy stands between gateway and Envoy, notes when each response and each acknowledgement passes, and may change responses.
type spy struct {
	socket, gateway string
	change          func(*discoveryv3.DeltaDiscoveryResponse) error // nil for none
	server          *grpc.Server

	mu    sync.Mutex
	noted []message
}

// A message is a response of the gateway, or what Envoy said to it.
type message struct {
	at    time.Time
	sent  bool // by the gateway
	kind  string
	nonce string
	names []string // of resources, and of those that are removed
	size  int
}

// startSpy listens on a socket, and connects to the gateway's when Envoy does.
func startSpy(socket, gateway string, change func(*discoveryv3.DeltaDiscoveryResponse) error) (*spy, error) {
	s := &spy{socket: socket, gateway: gateway, change: change}
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen between gateway and Envoy: %w", err)
	}
	s.server = grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(s.pass), grpc.MaxRecvMsgSize(64<<20))
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

func (s *spy) stop() { s.server.Stop() }

// rawCodec leaves messages as they are.
type rawCodec struct{}

// Marshal implements encoding.Codec.
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

// Unmarshal implements encoding.Codec.
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// Name implements encoding.Codec.
func (rawCodec) Name() string { return "proto" }

// pass passes one stream on, in both directions.
func (s *spy) pass(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	conn, err := grpc.NewClient("unix:"+s.gateway, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	isXDS := strings.HasSuffix(method, "DeltaAggregatedResources")
	go func() {
		defer cancel()
		for {
			var data []byte
			if err := in.RecvMsg(&data); err != nil {
				if errors.Is(err, io.EOF) {
					_ = out.CloseSend()
				}
				return
			}
			if isXDS {
				s.request(data)
			}
			if err := out.SendMsg(&data); err != nil {
				return
			}
		}
	}()
	for {
		var data []byte
		if err := out.RecvMsg(&data); err != nil {
			return err
		}
		if isXDS {
			if data, err = s.response(data); err != nil {
				return err
			}
		}
		if err := in.SendMsg(&data); err != nil {
			return err
		}
	}
}

func (s *spy) note(m message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted = append(s.noted, m)
}

// request notes what Envoy says.
func (s *spy) request(data []byte) {
	now := time.Now()
	r := &discoveryv3.DeltaDiscoveryRequest{}
	if proto.Unmarshal(data, r) == nil {
		s.note(message{at: now, kind: kindOf(r.GetTypeUrl()), nonce: r.GetResponseNonce(), size: len(data)})
	}
}

// response notes what the gateway says, and changes it.
func (s *spy) response(data []byte) ([]byte, error) {
	now := time.Now()
	r := &discoveryv3.DeltaDiscoveryResponse{}
	if err := proto.Unmarshal(data, r); err != nil {
		return nil, err
	}
	m := message{at: now, sent: true, kind: kindOf(r.GetTypeUrl()), nonce: r.GetNonce(), names: r.GetRemovedResources(), size: len(data)}
	for _, o := range r.GetResources() {
		m.names = append(m.names, o.GetName())
	}
	s.note(m)
	if s.change == nil {
		return data, nil
	}
	if err := s.change(r); err != nil {
		return nil, err
	}
	return proto.Marshal(r)
}

// kindOf is the last word of a type's URL.
func kindOf(url string) string { return url[strings.LastIndex(url, ".")+1:] }

// take returns what was noted since the last call.
func (s *spy) take() []message {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.noted
	s.noted = nil
	return out
}

// withoutDisabled takes out of listeners all HTTP filters that are disabled until a route enables them, and moves the listeners
// to other ports.
func withoutDisabled(move uint32) func(*discoveryv3.DeltaDiscoveryResponse) error {
	return func(r *discoveryv3.DeltaDiscoveryResponse) error {
		if kindOf(r.GetTypeUrl()) != "Listener" {
			return nil
		}
		for _, o := range r.GetResources() {
			l := &listenerv3.Listener{}
			if err := o.GetResource().UnmarshalTo(l); err != nil {
				return fmt.Errorf("read listener: %w", err)
			}
			if socket := l.GetAddress().GetSocketAddress(); socket != nil && socket.GetPortValue() != 0 {
				socket.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: socket.GetPortValue() + move}
			}
			for _, chain := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
				if err := strip(chain); err != nil {
					return err
				}
			}
			if err := o.GetResource().MarshalFrom(l); err != nil {
				return fmt.Errorf("write listener: %w", err)
			}
		}
		return nil
	}
}

// strip takes the disabled HTTP filters out of one filter chain.
func strip(chain *listenerv3.FilterChain) error {
	for _, f := range chain.GetFilters() {
		m := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(m) {
			continue
		}
		if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
			return fmt.Errorf("read filter: %w", err)
		}
		var kept []*hcmv3.HttpFilter
		for _, h := range m.GetHttpFilters() {
			if !h.GetDisabled() {
				kept = append(kept, h)
			}
		}
		m.HttpFilters = kept
		if err := f.GetTypedConfig().MarshalFrom(m); err != nil {
			return fmt.Errorf("write filter: %w", err)
		}
	}
	return nil
}
