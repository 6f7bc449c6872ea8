package authz

import (
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"

	"hythe.dev/hythe/gateway/auth"
)

// A header is one line.
type header struct{ name, value string }

// A verdict is what becomes of a request.
type verdict struct {
	ok bool
	// status is answered where ok is false.
	status int
	// set and remove are changes of the request, answer what is added to the answer.
	set    []header
	remove []string
	answer []header
}

// closed lets nobody in.
func closed(status int) verdict { return verdict{status: status} }

// without removes a header from the request, unless the verdict sets it.
func (v verdict) without(name string) verdict {
	for _, h := range v.set {
		if strings.EqualFold(h.name, name) {
			return v
		}
	}
	v.remove = append(v.remove[:len(v.remove):len(v.remove)], name)
	return v
}

// unasked takes the headers away that ask would have set: a client who comes in by a password could set them.
func (v verdict) unasked(ask *auth.Ask) verdict {
	if ask == nil || !v.ok {
		return v
	}
	for _, c := range ask.Copy {
		v = v.without(strings.ToLower(c.To))
	}
	return v
}

// valid says whether Envoy takes a header.
func (h header) valid() bool {
	return httpguts.ValidHeaderFieldName(h.name) && httpguts.ValidHeaderFieldValue(h.value) && utf8.ValidString(h.value)
}

func options(headers []header, action corev3.HeaderValueOption_HeaderAppendAction) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, h := range headers {
		out = append(out, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: h.name, Value: h.value}, AppendAction: action})
	}
	return out
}

func (v verdict) response() *authv3.CheckResponse {
	for _, list := range [][]header{v.set, v.answer} {
		for _, h := range list {
			if !h.valid() { // by a server that says what no header may hold
				v = closed(500)
			}
		}
	}
	const overwrite, add = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	if v.ok {
		return &authv3.CheckResponse{
			Status: &status.Status{Code: int32(code.Code_OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
				Headers: options(v.set, overwrite), HeadersToRemove: v.remove, ResponseHeadersToAdd: options(v.answer, add),
			}},
		}
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code.Code_PERMISSION_DENIED)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(v.status)}, Headers: options(v.answer, add),
		}},
	}
}
