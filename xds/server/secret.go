package server

import (
	"bytes"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"hythe.dev/hythe/xds"
)

// anew is the body of a Secret for its n-th try after it was in a refused response. Envoy keeps the hash of a Secret
// before it finds that it cannot load it, and acknowledges the same content the next time without looking: so each try
// is another content with the same meaning, by newlines at the end of the PEM text.
func anew(body *anypb.Any, n int) *anypb.Any {
	secret := new(tlsv3.Secret)
	if err := body.UnmarshalTo(secret); err != nil {
		return body
	}
	longer := func(text *corev3.DataSource) *corev3.DataSource {
		out := append(bytes.Clone(text.GetInlineBytes()), bytes.Repeat([]byte("\n"), n)...)
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: out}}
	}
	switch pair, context := secret.GetTlsCertificate(), secret.GetValidationContext(); {
	case pair != nil:
		pair.CertificateChain = longer(pair.GetCertificateChain())
	case context != nil:
		context.TrustedCa = longer(context.GetTrustedCa())
	default:
		return body
	}
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, secret, proto.MarshalOptions{Deterministic: true}); err != nil {
		return body
	}
	return out
}

// body is the body of an item under the item's name.
func (m *machine) body(kind xds.Kind, i item) *anypb.Any {
	if kind != xds.Secret || m.target.Get(xds.Secret, i.name) != nil {
		return i.resource.Body
	}
	body, err := xds.Rename(i.resource.Body, i.name)
	if err != nil {
		return i.resource.Body // Envoy refuses it
	}
	return body
}
