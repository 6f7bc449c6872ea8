package xds

import (
	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"hythe.dev/hythe/gateway"
)

// filterHSTS names the filter that sets Strict-Transport-Security. It stands in the chains of TLS alone, since over plain http
// it must not be sent (RFC 6797 section 7.2).
const filterHSTS = "hythe.hsts"

// hsts tells browsers to come by https from now on. Hosts with the default certificate do not say it: who believed them could
// not come at all, as no browser lets its user past a bad certificate then.
func (b *builder) hsts(certificate string) []*hcmv3.HttpFilter {
	if b.settings.HSTS == "" || certificate == gateway.DefaultCertificateName {
		return nil
	}
	return []*hcmv3.HttpFilter{{
		Name: filterHSTS,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.any(&mutationv3.HeaderMutation{Mutations: &mutationv3.Mutations{
			ResponseMutations: []*rulesv3.HeaderMutation{headerOf("strict-transport-security", b.settings.HSTS)},
		}})},
	}}
}
