package xds

import (
	"cmp"
	"net/netip"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway/policy"
)

const (
	// mostClients is how many clients a route counts; after that the one that was longest silent is forgotten. Envoy needs
	// some hundred bytes for each.
	mostClients = 10_000
	// burstMultiplier is ingress-nginx' own.
	burstMultiplier = 5
	// clientKey is the entry of the descriptor that has the client.
	clientKey = "masked_remote_address"
	// ClientState is the key of the filter state with the client's address.
	ClientState = "hythe.client"
)

// rateLimit counts requests by client, in Envoy itself, and answers 429.
func rateLimit(l policy.Limits) *limitv3.LocalRateLimit {
	all := &typev3.FractionalPercent{Numerator: 100}
	config := &limitv3.LocalRateLimit{
		StatPrefix:     "limit",
		FilterEnabled:  &corev3.RuntimeFractionalPercent{DefaultValue: all},
		FilterEnforced: &corev3.RuntimeFractionalPercent{DefaultValue: all},
		// The bucket of whoever has no address.
		TokenBucket:                     bucket(cmp.Or(l.PerSecond, l.PerMinute), l.Burst, time.Second),
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		MaxDynamicDescriptors:           wrapperspb.UInt32(mostClients),
		EnableRetryAfterHeader:          true,
		RateLimitedAsResourceExhausted:  true,
	}
	add := func(perFill uint32, fill time.Duration, mark string) {
		if perFill == 0 {
			return
		}
		actions := []*routev3.RateLimit_Action{{ActionSpecifier: &routev3.RateLimit_Action_MaskedRemoteAddress_{
			MaskedRemoteAddress: &routev3.RateLimit_Action_MaskedRemoteAddress{
				V4PrefixMaskLen: wrapperspb.UInt32(32), V6PrefixMaskLen: wrapperspb.UInt32(64),
			},
		}}, {ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
			GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: "per", DescriptorValue: mark},
		}}}
		config.RateLimits = append(config.RateLimits, &routev3.RateLimit{Actions: actions})
		config.Descriptors = append(config.Descriptors, &ratelimitv3.LocalRateLimitDescriptor{
			Entries:     []*ratelimitv3.RateLimitDescriptor_Entry{{Key: clientKey}, {Key: "per", Value: mark}},
			TokenBucket: bucket(perFill, l.Burst, fill),
		})
	}
	add(l.PerSecond, time.Second, "second")
	add(l.PerMinute, time.Minute, "minute")
	return config
}

// bucket is a limit_req of nginx with a burst and nodelay: one request and the burst at once, then as the rate is.
func bucket(perFill, burst uint32, fill time.Duration) *typev3.TokenBucket {
	return &typev3.TokenBucket{
		MaxTokens: perFill*cmp.Or(burst, burstMultiplier) + 1, TokensPerFill: wrapperspb.UInt32(perFill), FillInterval: durationpb.New(fill),
	}
}

// exempt are a route for the clients without limits, which goes before the route with them.
func exempt(clients []netip.Prefix, out *routev3.Route) *routev3.Route {
	list := &matcherv3.AddressMatcher{}
	for _, p := range clients {
		list.Ranges = append(list.Ranges, &xdscorev3.CidrRange{
			AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits())),
		})
	}
	out = proto.CloneOf(out)
	delete(out.TypedPerFilterConfig, filterRateLimit)
	out.Match.FilterState = append(out.Match.FilterState, &matcherv3.FilterStateMatcher{
		Key: ClientState, Matcher: &matcherv3.FilterStateMatcher_AddressMatch{AddressMatch: list},
	})
	return out
}

// clientValue is the client's address as routes can match it: filter state, set for each connection, or for each request where
// a trusted proxy opened the connection.
func clientValue() *statev3.FilterStateValue {
	return &statev3.FilterStateValue{
		Key:        &statev3.FilterStateValue_ObjectKey{ObjectKey: ClientState},
		FactoryKey: "envoy.network.ip",
		Value:      &statev3.FilterStateValue_FormatString{FormatString: textFormat("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")},
	}
}

// bandwidth slows each answer down for itself. Envoy's filter of that name would divide the rate among all requests of the
// route.
func bandwidth(kib uint64) *faultv3.HTTPFault {
	return &faultv3.HTTPFault{ResponseRateLimit: &commonfaultv3.FaultRateLimit{
		LimitType:  &commonfaultv3.FaultRateLimit_FixedLimit_{FixedLimit: &commonfaultv3.FaultRateLimit_FixedLimit{LimitKbps: kib}},
		Percentage: &typev3.FractionalPercent{Numerator: 100},
	}}
}
