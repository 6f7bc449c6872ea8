package xds

import (
	"net/netip"

	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// forgeable are the headers by which a client could pass for another, or for a proxy before us. None is trusted: Hythe is the
// first proxy of a request, but for what trusted proxies send (withTrusted). Envoy itself would append to X-Forwarded-For, and
// pods that read its first entry believe it.
var forgeable = []*matcherv3.StringMatcher{
	headerPrefix("x-forwarded-"), headerPrefix("x-original-"), headerPrefix("x-envoy-"),
	headerName("forwarded"), headerName(errorHeader), headerName("x-real-ip"), headerPrefix("ssl-client-"),
	headerName(serverNameHeader), headerName(sameNameHeader),
	headerName("x-scheme"), headerName("x-sent-from"), headerName("x-auth-request-redirect"), // ingress-nginx' own
}

// identify are the headers that say who the client is, beside those that Envoy sets: X-Forwarded-For and
// X-Forwarded-Proto. Pods behind ingress-nginx read these.
var identify = []*corev3.HeaderValueOption{
	overwrite("x-real-ip", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
	overwrite("x-forwarded-host", "%REQ(:AUTHORITY)%"), overwrite("x-scheme", "%REQ(X-FORWARDED-PROTO)%"),
}

// dropForgeable removes headers before Envoy looks at any, and adds what is true instead.
func (b *builder) dropForgeable(instead ...*rulesv3.HeaderMutation) []*corev3.TypedExtensionConfig {
	var mutations []*rulesv3.HeaderMutation
	for _, m := range forgeable {
		mutations = append(mutations, &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &rulesv3.HeaderMutation_RemoveOnMatch{KeyMatcher: m},
		}})
	}
	if b.trusted {
		mutations = keepForwarded(mutations)
	}
	return []*corev3.TypedExtensionConfig{{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: b.any(&earlyv3.HeaderMutation{Mutations: append(mutations, instead...)}),
	}}
}

// nobodyInternal says that no client is internal: of whoever is, Envoy keeps x-request-id, by which he chooses what is traced, and
// x-envoy-* headers. Pods are clients like others. Without a range, all private addresses are internal.
func nobodyInternal() *hcmv3.HttpConnectionManager_InternalAddressConfig {
	return &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{cidr(netip.PrefixFrom(netip.IPv4Unspecified(), 32))},
	}
}

func headerPrefix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

func headerName(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func overwrite(name, format string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: format},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
