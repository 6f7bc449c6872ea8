package xds

import (
	"net/http"
	"slices"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	brotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	zstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	customv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/custom_response/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
)

// The HTTP filters, in their order. The chain is the same for all hosts and never changes, since a changed listener drains
// its connections: what a route does not switch on by its typed_per_filter_config, under these names, is disabled, and
// Envoy makes no filter for it.
const (
	filterPaths          = "envoy.filters.http.rbac" // always on: refuse.go
	filterCustomResponse = "hythe.custom-response"
	filterCORS           = "hythe.cors"
	filterGRPCWeb        = "hythe.grpc-web"
	filterSources        = "hythe.sources"
	filterRateLimit      = "hythe.rate-limit"
	filterBodySize       = "hythe.body-size"
	filterBasicAuth      = "hythe.basic-auth"
	filterExternalAuth   = "hythe.external-auth"
	filterHeaders        = "hythe.headers"
	filterGzip           = "hythe.gzip"
	filterBrotli         = "hythe.brotli"
	filterZstd           = "hythe.zstd"
	filterBandwidth      = "hythe.bandwidth"
	filterSession        = "hythe.session"
	filterAnswers        = "hythe.answers" // last: what it changes is the backend's
)

// httpFilters are those of every request.
func (b *builder) httpFilters() []*hcmv3.HttpFilter {
	return b.filters(func(string) bool { return true })
}

// upgradeFilters are those of WebSockets, whose bytes are no body.
func (b *builder) upgradeFilters() []*hcmv3.HttpFilter {
	return b.filters(func(name string) bool {
		switch name {
		case filterCustomResponse, filterGRPCWeb, filterBodySize, filterGzip, filterBrotli, filterZstd:
			return false
		}
		return true
	})
}

func (b *builder) filters(keep func(name string) bool) []*hcmv3.HttpFilter {
	out := []*hcmv3.HttpFilter{b.refuseConfusing()}
	add := func(name string, config message) {
		if keep(name) {
			out = append(out, &hcmv3.HttpFilter{
				Name: name, Disabled: !b.compresses(name),
				ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(config)},
			})
		}
	}
	add(filterCustomResponse, &customv3.CustomResponse{})
	add(filterCORS, &corsv3.Cors{})
	add(filterGRPCWeb, b.composite())
	add(filterSources, &rbacv3.RBAC{})
	add(filterRateLimit, &limitv3.LocalRateLimit{StatPrefix: "limit"})
	add(filterBodySize, b.composite())
	add(filterBasicAuth, b.composite())
	add(filterExternalAuth, externalAuth())
	add(filterHeaders, &mutationv3.HeaderMutation{})
	add(filterBrotli, b.compressor("brotli", &brotliv3.Brotli{}))
	add(filterZstd, b.compressor("zstd", &zstdv3.Zstd{}))
	add(filterGzip, b.compressor("gzip", &gzipv3.Gzip{}))
	add(filterBandwidth, &faultv3.HTTPFault{})
	add(filterSession, &sessionv3.StatefulSession{})
	add(filterAnswers, b.composite())
	return append(out, b.router()...)
}

// composite is a place in the chain for a filter that always puts there.
func (b *builder) composite() *matchingv3.ExtensionWithMatcher {
	return &matchingv3.ExtensionWithMatcher{
		XdsMatcher:      &xdsmatcherv3.Matcher{},
		ExtensionConfig: &corev3.TypedExtensionConfig{Name: "composite", TypedConfig: b.any(&compositev3.Composite{})},
	}
}

// compressorNames are the names of the algorithms in those of filters.
var compressorNames = map[gateway.Algorithm]string{gateway.Brotli: "brotli", gateway.Zstd: "zstd", gateway.Gzip: "gzip"}

// compresses says whether a filter is on for all routes: those that compress, if the gateway does.
func (b *builder) compresses(filter string) bool {
	return slices.ContainsFunc(b.compression.Algorithms, func(a gateway.Algorithm) bool { return "hythe."+compressorNames[a] == filter })
}

// compressor compresses answers of some types that are not compressed yet, if the client takes it.
func (b *builder) compressor(name string, library message) *compressorv3.Compressor {
	response := &compressorv3.Compressor_ResponseDirectionConfig{
		CommonConfig: &compressorv3.Compressor_CommonDirectionConfig{ContentType: b.compression.Types},
		// What is a part of a file is none of its compressed form.
		UncompressibleResponseCodes: []uint32{http.StatusPartialContent},
		WeakenEtagOnCompress:        true,
	}
	if b.compression.MinBytes != 0 {
		response.CommonConfig.MinContentLength = wrapperspb.UInt32(b.compression.MinBytes)
	}
	return &compressorv3.Compressor{
		CompressorLibrary:       &corev3.TypedExtensionConfig{Name: name, TypedConfig: b.any(library)},
		ResponseDirectionConfig: response,
		// Browsers name them all alike, gzip first.
		ChooseFirst: len(b.compression.Algorithms) > 0 && name == compressorNames[b.compression.Algorithms[0]],
	}
}

// always is the configuration for a route of a filter which knows none for routes: the filter in the chain is a composite
// one, which becomes this filter for all requests of the route.
func (b *builder) always(name string, config message) *matchingv3.ExtensionWithMatcherPerRoute {
	action := b.any(&compositev3.ExecuteFilterAction{TypedConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: b.any(config)}})
	return &matchingv3.ExtensionWithMatcherPerRoute{XdsMatcher: &xdsmatcherv3.Matcher{
		OnNoMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
			Action: &xdscorev3.TypedExtensionConfig{Name: name, TypedConfig: action},
		}},
	}}
}

// enable switches a filter on for a route, with the route's configuration of it.
func (b *builder) enable(r *routev3.Route, filter string, config message) {
	if r.TypedPerFilterConfig == nil {
		r.TypedPerFilterConfig = map[string]*anypb.Any{}
	}
	r.TypedPerFilterConfig[filter] = b.any(config)
}
