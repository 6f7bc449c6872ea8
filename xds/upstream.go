package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// Names of Secret resources for TLS to pods are those of Secrets with one of these in front. Those of certificates that are
// shown to clients have no colon.
const (
	authoritiesPrefix = "authorities:"
	shownPrefix       = "shown:"
)

// addTrusts adds what clusters verify pods by, and what they show to them.
func (b *builder) addTrusts(trusts []gateway.Trust) {
	for _, t := range trusts {
		objects := certificateObjects(t.Name)
		pair := b.few(&Resource{Kind: Secret, Name: shownPrefix + t.Name, Objects: objects})
		b.contain(pair, "its backends answer 503", func() {
			b.add(pair, secret(gateway.Certificate{Name: pair.Name, Chain: t.Chain, Key: t.Key}))
		})
		if len(t.Authorities) == 0 {
			continue
		}
		authorities := b.few(&Resource{Kind: Secret, Name: authoritiesPrefix + t.Name, Objects: objects})
		b.contain(authorities, "its backends answer 503", func() {
			b.add(authorities, &tlsv3.Secret{Name: authorities.Name, Type: &tlsv3.Secret_ValidationContext{
				ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inlineBytes(t.Authorities)},
			}})
		})
	}
}

func inlineBytes(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}

// upstreamSettings puts an Upstream into the context of connections to pods.
func upstreamSettings(context *tlsv3.UpstreamTlsContext, u policy.Upstream) {
	common := context.CommonTlsContext
	if u.SendName {
		context.Sni = u.Name
	}
	if v, ok := tlsVersions[u.Lowest]; ok {
		common.TlsParams.TlsMinimumProtocolVersion = v
	}
	if v, ok := tlsVersions[u.Highest]; ok {
		common.TlsParams.TlsMaximumProtocolVersion = v
	}
	if u.Secret != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: shownPrefix + u.Secret, SdsConfig: ads()}}
	}
	if !u.Verify {
		return
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{
				MaxVerifyDepth: wrapperspb.UInt32(u.VerifyDepth() + 1), // Envoy 1.40 heeds it for clients only
				MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
					SanType: tlsv3.SubjectAltNameMatcher_DNS,
					Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: u.Name}},
				}},
			},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: authoritiesPrefix + u.Secret, SdsConfig: ads()},
		},
	}
}

var tlsVersions = map[policy.TLSVersion]tlsv3.TlsParameters_TlsProtocol{
	policy.TLS12: tlsv3.TlsParameters_TLSv1_2, policy.TLS13: tlsv3.TlsParameters_TLSv1_3,
}

// secretsOf are the Secret resources that a cluster waits for.
func secretsOf(u policy.Upstream) []string {
	var out []string
	if u.Secret != "" {
		out = append(out, shownPrefix+u.Secret)
	}
	if u.Verify {
		out = append(out, authoritiesPrefix+u.Secret)
	}
	return out
}
