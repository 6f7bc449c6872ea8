package follow

import (
	"strings"
	"testing"

	"hythe.dev/hythe/internal/model"
)

// The remedy is what is said of this path and this Service, not all that is said of the Ingress.
func TestRemedyOfOne(t *testing.T) {
	ingress := model.ObjectRef{Kind: "Ingress", Namespace: "shop", Name: "shop"}
	config, want := world(t)
	want.Problems = []model.Problem{
		model.Problemf(ingress, "ServiceNotFound", "Service shop/a is missing; host shop.test, %s /a answers 503", want.Config.Hosts[0].Routes[0].Match),
		model.Problemf(ingress, "ServiceNotFound", "Service shop/x is missing; host shop.test, %s /gone answers 503", want.host("shop.test").Routes[0].Match),
		model.Problemf(model.ObjectRef{Kind: "Service", Namespace: "shop", Name: "web"}, model.ReasonEndpointRefused, "2 endpoints are not used"),
	}
	remedy := func(path string) string {
		hops := Follow(config, want, Request{Scheme: "https", Host: "shop.test", Path: path}).Hops
		return hops[len(hops)-1].Remedy
	}
	if got := remedy("/gone"); !strings.Contains(got, "shop/x") || strings.Contains(got, "shop/a") {
		t.Errorf("path without a Service: %s", got)
	}
	shopCluster(config).Endpoints = nil
	if got := remedy("/"); !strings.Contains(got, "endpoints are not used") {
		t.Errorf("Service whose endpoints are refused: %s", got)
	}
}
