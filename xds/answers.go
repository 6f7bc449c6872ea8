package xds

import (
	_ "embed"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway/policy"
)

// answersScript changes Set-Cookie, Location and Refresh: no filter of Envoy can take a header with several values apart. It is
// the same for all routes, and what it is to do comes as data, so nothing that users write is ever part of a program.
//
//go:embed answers.lua
var answersScript string

// changeAnswers changes headers of what backends answer.
func (b *builder) changeAnswers(r *routev3.Route, a policy.Answers) {
	if a.String() == "" {
		return
	}
	b.enable(r, filterAnswers, b.always("answers", &luav3.Lua{
		DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: answersScript}},
		FilterContext:     answersContext(a),
		SharedVmId:        "answers", // a VM for each worker, not for each route
		ClearRouteCache:   wrapperspb.Bool(false),
	}))
}

func answersContext(a policy.Answers) *structpb.Struct {
	fields := map[string]*structpb.Value{}
	pair := func(name string, from, to *structpb.Value) {
		fields[name] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"from": from, "to": to}})
	}
	if a.CookieDomain.From != "" {
		pair("domain", structpb.NewStringValue(a.CookieDomain.From), structpb.NewStringValue(a.CookieDomain.To))
	}
	if a.CookiePath.From != "" {
		pair("path", structpb.NewStringValue(a.CookiePath.From), structpb.NewStringValue(a.CookiePath.To))
	}
	if len(a.LocationFrom) > 0 {
		pair("location", partsValue(a.LocationFrom), partsValue(a.LocationTo))
	}
	return &structpb.Struct{Fields: fields}
}

// partsValue is a list of texts, and of what is known of the request: "host" or "scheme" after a colon.
func partsValue(parts []policy.HeaderPart) *structpb.Value {
	list := &structpb.ListValue{}
	for _, p := range parts {
		text := "=" + p.Text
		switch p.Of {
		case policy.HeaderHost:
			text = ":host"
		case policy.HeaderScheme:
			text = ":scheme"
		}
		list.Values = append(list.Values, structpb.NewStringValue(text))
	}
	return structpb.NewListValue(list)
}

// mark is metadata that says no more than that it is there.
func mark(key string) map[string]*structpb.Struct {
	return map[string]*structpb.Struct{key: {}}
}
