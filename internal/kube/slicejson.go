package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"

	"hythe.dev/hythe/internal/model"
)

// appendSlice appends s as JSON of the API's type, as json.Marshal(s.expand()) writes it but for fields that are empty. The
// cache of a big cluster holds hundreds of thousands of endpoints: by way of the API's type each would cost half a kilobyte
// of memory for a moment, every few seconds.
func appendSlice(b []byte, s *endpointSlice) ([]byte, error) {
	bare := *s
	bare.endpoints = nil
	o := bare.expand()
	if len(s.endpoints) > 0 && s.endpoints[0].AddrPort.Addr().Is6() {
		o.AddressType = discoveryv1.AddressTypeIPv6
	}
	head, err := json.Marshal(o)
	if err != nil || len(s.endpoints) == 0 {
		return append(b, head...), err
	}
	const none = `"endpoints":null`
	before, after, found := bytes.Cut(head, []byte(none))
	if !found {
		return nil, errors.New("the API's EndpointSlice has no endpoints")
	}
	b = append(append(b, before...), `"endpoints":[`...)
	for i, e := range s.endpoints {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEndpoint(b, e)
	}
	return append(append(b, ']'), after...), nil
}

func appendEndpoint(b []byte, e model.Endpoint) []byte {
	b = append(b, `{"addresses":["`...)
	b = e.AddrPort.Addr().AppendTo(b)
	b = append(b, `"],"conditions":{"ready":`...)
	b = strconv.AppendBool(b, e.Ready)
	b = strconv.AppendBool(append(b, `,"serving":`...), e.Serving)
	b = strconv.AppendBool(append(b, `,"terminating":`...), e.Terminating)
	b = append(b, '}')
	if e.Pod != "" {
		b = append(appendText(append(b, `,"targetRef":{"kind":"Pod","name":`...), e.Pod), '}')
	}
	if e.Node != "" {
		b = appendText(append(b, `,"nodeName":`...), e.Node)
	}
	if e.Hints != nil {
		b = append(b, `,"hints":`...)
		hints, _ := json.Marshal(expandHints(e.Hints)) // strings alone
		b = append(b, hints...)
	}
	return append(b, '}')
}

// appendText appends a JSON string.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' { // no name has these
			quoted, _ := json.Marshal(text) // a string
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}
