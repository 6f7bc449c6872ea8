package xds

import (
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"hythe.dev/hythe/gateway"
)

const (
	// passthroughName begins the name of a chain that hands connections on. No Secret's name has a space.
	passthroughName = "passthrough "
	// passthroughIdle ends a connection on which no byte moves for so long; it is Envoy's default.
	passthroughIdle = time.Hour
)

// passthroughChain hands the connections of a server name on as they are.
func (b *builder) passthroughChain(p gateway.Passthrough) *listenerv3.FilterChain {
	proxy := &tcpv3.TcpProxy{
		StatPrefix:       "passthrough",
		ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: p.Backend},
		IdleTimeout:      durationpb.New(passthroughIdle),
	}
	return &listenerv3.FilterChain{
		Name:             passthroughName + p.ServerName,
		FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{p.ServerName}},
		Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.tcp_proxy",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(proxy)},
		}},
	}
}

// isPassthrough reports whether a chain hands its connections on.
func isPassthrough(chain *listenerv3.FilterChain) bool {
	return strings.HasPrefix(chain.GetName(), passthroughName)
}

// stampPassthroughs says that no chain which speaks http is for these names: a request for one of them on the connection of
// another host, as browsers may send where a certificate has both names, is answered 421, and they open a connection of its own.
func (b *builder) stampPassthroughs(passthroughs []gateway.Passthrough) {
	for _, p := range passthroughs {
		b.chains.byName[p.ServerName] = passthroughName + p.ServerName
	}
}

// passedTo are the clusters of passthroughChain.
func passedTo(passthroughs []gateway.Passthrough) []string {
	var out []string
	for _, p := range passthroughs {
		out = append(out, p.Backend)
	}
	return out
}
