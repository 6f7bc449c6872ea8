package xds

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// TestExpressionsAreBounded: Envoy refuses a host for an expression of more than 2,000 instructions. Long lists are divided, or left
// out where a list is for comfort.
func TestExpressionsAreBounded(t *testing.T) {
	var origins []string
	for i := range 150 {
		origins = append(origins, fmt.Sprintf(`(?i:https://application-%d\.customers\.example\.com)`, i))
	}
	b := newBuilder(nil, gateway.Config{}, Settings{}.withDefaults())
	r := gateway.Route{Match: gateway.Prefix, Path: "/", Backend: "a", Policy: &policy.Route{CORS: policy.CORS{Enabled: true, Origins: origins}}}
	seen := map[string]bool{}
	for _, route := range b.routes(r) {
		for _, h := range route.GetMatch().GetHeaders() {
			expression := h.GetStringMatch().GetSafeRegex().GetRegex()
			if len(expression) > mostOfExpressions+100 {
				t.Errorf("an expression of %d bytes", len(expression))
			}
			for _, o := range origins {
				seen[o] = seen[o] || strings.Contains(expression, o)
			}
		}
	}
	if i := slices.IndexFunc(origins, func(o string) bool { return !seen[o] }); i >= 0 {
		t.Errorf("%s is in no expression", origins[i])
	}
	var names []string
	for i := range 16 {
		names = append(names, fmt.Sprintf("%s-%d.example.com", strings.Repeat("x", 170), i))
	}
	table := chainTable{names: map[string][]string{"shop/tls": names}, byName: map[string]string{names[3]: "shop/tls"}}
	if e := table.ownName(names[3]); len(e) > mostOfExpressions+100 {
		t.Errorf("an expression of %d bytes for the names of a certificate", len(e))
	}
}
