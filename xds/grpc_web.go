package xds

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"

	"hythe.dev/hythe/gateway"
)

// speakHTTP2 are the Names of the Backends whose pods speak HTTP/2, which is for gRPC.
func speakHTTP2(backends []gateway.Backend) map[string]bool {
	out := map[string]bool{}
	for _, b := range backends {
		if b.Protocol.HTTP2() {
			out[b.Name] = true
		}
	}
	return out
}

// takeGRPCWeb makes gRPC of the gRPC-Web of browsers, where pods speak gRPC. Others get gRPC-Web as it is: some have it
// themselves.
func (b *builder) takeGRPCWeb(r gateway.Route, out *routev3.Route) {
	if out.GetRoute() != nil && b.grpc[r.Backend] && !b.listen.NoGRPCWeb {
		b.enable(out, filterGRPCWeb, b.always("grpc-web", &grpcwebv3.GrpcWeb{}))
	}
}
