package xds

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway/policy"
)

// balance says how a cluster chooses among its endpoints.
func balance(c *clusterv3.Cluster, how policy.Balance) {
	switch how {
	case policy.LeastRequest:
		c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	case policy.RoundRobin:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case policy.Hashed:
		// Ketama's ring, as nginx has it; its upper bound is for the memory of Services with many pods.
		c.LbPolicy = clusterv3.Cluster_RING_HASH
		c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(1024), MaximumRingSize: wrapperspb.UInt64(64 << 10),
		}}
	}
}

// hashPolicies are the parts of a key, all of which count. Requests that have none of them go to any pod.
func hashPolicies(keys []policy.HashKey) []*routev3.RouteAction_HashPolicy {
	var out []*routev3.RouteAction_HashPolicy
	header := func(name string, rewrite *matcherv3.RegexMatchAndSubstitute) *routev3.RouteAction_HashPolicy {
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: name, RegexRewrite: rewrite},
		}}
	}
	for _, k := range keys {
		var p *routev3.RouteAction_HashPolicy
		switch k.Of {
		case policy.HashURI:
			p = header(":path", nil)
		case policy.HashPath:
			p = header(":path", &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: `\?.*`}})
		case policy.HashHost:
			p = header(":authority", nil)
		case policy.HashHeader:
			p = header(k.Name, nil)
		case policy.HashClient:
			p = &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
			}}
		case policy.HashCookie:
			p = &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{
				Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: k.Name},
			}}
		case policy.HashQuery:
			p = &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_QueryParameter_{
				QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: k.Name},
			}}
		}
		out = append(out, p)
	}
	return out
}
