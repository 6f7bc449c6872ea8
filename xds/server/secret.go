package server

import (
	"bytes"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// anew is the body of a Secret for its n-th try after it was in a refused response. Envoy keeps the hash of a Secret
// before it finds that it cannot load it, and acknowledges the same content the next time without looking: so each try
// is another content with the same meaning, by newlines at the end of the PEM text.
func anew(body *anypb.Any, n int) *anypb.Any {
	secret := new(tlsv3.Secret)
	if err := body.UnmarshalTo(secret); err != nil {
		return body
	}
	pair := secret.GetTlsCertificate()
	if pair == nil {
		return body
	}
	chain := append(bytes.Clone(pair.GetCertificateChain().GetInlineBytes()), bytes.Repeat([]byte("\n"), n)...)
	pair.CertificateChain = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: chain}}
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, secret, proto.MarshalOptions{Deterministic: true}); err != nil {
		return body
	}
	return out
}
