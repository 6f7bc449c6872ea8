package xds

import (
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"

	"hythe.dev/hythe/gateway/policy"
)

// changeHeaders changes headers of requests, and of all answers, also those that Envoy gives itself.
func (b *builder) changeHeaders(r *routev3.Route, request, response []policy.Header) {
	if len(request)+len(response) == 0 {
		return
	}
	b.enable(r, filterHeaders, &mutationv3.HeaderMutationPerRoute{Mutations: &mutationv3.Mutations{
		RequestMutations: mutations(request), ResponseMutations: mutations(response),
	}})
}

func mutations(headers []policy.Header) []*mutationrulesv3.HeaderMutation {
	var out []*mutationrulesv3.HeaderMutation
	for _, h := range headers {
		if h.Value == nil {
			out = append(out, &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Remove{Remove: h.Name}})
			continue
		}
		action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if h.Add {
			action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		out = append(out, &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: h.Name, Value: headerFormat(h.Value)}, AppendAction: action,
		}}})
	}
	return out
}

// headerFormat is a value in Envoy's format, in which % begins a command.
func headerFormat(parts []policy.HeaderPart) string {
	var out strings.Builder
	for _, p := range parts {
		switch p.Of {
		case policy.HeaderText:
			out.WriteString(strings.ReplaceAll(p.Text, "%", "%%"))
		case policy.HeaderClient:
			out.WriteString("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")
		case policy.HeaderHost:
			out.WriteString("%REQ(:AUTHORITY)%")
		case policy.HeaderScheme:
			out.WriteString("%REQ(X-FORWARDED-PROTO)%")
		case policy.HeaderRequest:
			out.WriteString("%REQ(" + p.Text + ")%")
		}
	}
	return out.String()
}

// answer is given in the place of the backend's.
func answer(a policy.Answer) *routev3.Route_DirectResponse {
	out := direct(a.Status)
	if a.Body != "" {
		out.DirectResponse.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: a.Body}}
	}
	return out
}
