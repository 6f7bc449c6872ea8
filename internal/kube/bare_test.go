package kube

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
)

// clientErrors lets client-go tell its first error: it waits between errors, from the time at which the process started, and in
// a bubble that is decades ahead.
func clientErrors(t *testing.T) {
	synctest.Test(t, func(*testing.T) { utilruntime.HandleErrorWithContext(t.Context(), errors.New("first"), "of a bubble") })
}

// TestKindNotServed takes the definition of a kind away: a node starts without it and keeps what it had, and a controller
// waits.
func TestKindNotServed(t *testing.T) {
	clientErrors(t)
	pool := map[string]any{"kind": "AddressPool", "apiVersion": v1alpha1.APIVersion,
		"metadata": map[string]any{"name": "edge"}, "spec": map[string]any{"addresses": []string{"203.0.113.0/24"}}}
	for _, bare := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(3)...)
			f.unserved = "addresspools"
			w := watchFake(t, f, APIOptions{Kinds: []string{"Service", "AddressPool"}, Bare: bare})
			defer w.stop()
			s := w.last(time.Minute)
			if !bare {
				if s != nil {
					t.Errorf("a Snapshot without all kinds: %+v", s)
				}
				if p := w.Problems(); len(p) != 1 || p[0].Reason != ReasonKindNotServed || !strings.Contains(p[0].Message, "nothing is done until") {
					t.Errorf("Problems %v of a process that waits for its first Snapshot", p)
				}
				f.set("addresspools", pool)
				f.serve("")
				if s = w.last(2 * time.Minute); s == nil || len(w.Problems()) != 0 {
					t.Errorf("Snapshot %v, Problems %v when the kind is served", s, w.Problems())
				}
				return
			}
			if s == nil || s.Services.Len() != 3 || reasons(s) != "KindNotServed" || w.FromCache() {
				t.Fatalf("Snapshot %+v", s)
			}
			f.set("addresspools", pool)
			f.serve("")
			if s = w.last(10 * time.Second); len(s.Pools) != 1 || len(s.Problems) != 0 {
				t.Errorf("pools %v, problems %v, when the kind is served", s.Pools, s.Problems)
			}
			f.serve("addresspools")
			f.gone("addresspools")
			if s = w.last(time.Minute); len(s.Pools) != 1 || reasons(s) != "KindNotServed" {
				t.Errorf("pools %v, problems %v, when it is not served any more", s.Pools, s.Problems)
			}
		})
	}
}

// TestKindNotServedAtStart: somebody deleted the definition of claims. A node that starts then has those that it had, as nodes that run do, and
// goes on to announce. When the kind is back and empty, they stay until that was read twice.
func TestKindNotServedAtStart(t *testing.T) {
	clientErrors(t)
	claim := map[string]any{"kind": "AddressClaim", "apiVersion": v1alpha1.APIVersion, "metadata": map[string]any{"name": "203.0.113.10"},
		"spec": map[string]any{"address": "203.0.113.10", "pool": "edge", "services": []any{map[string]any{"namespace": "a", "name": "web"}}}}
	for _, kinds := range [][]string{{"Service", "AddressClaim"}, {"Service", "GatewayConfig", "AddressClaim"}} { // the second has one more that is not served
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(3)...)
			f.set("addressclaims", claim)
			options := APIOptions{Kinds: []string{"Service", "AddressClaim"}, Bare: true, CacheDir: t.TempDir()}
			w := watchFake(t, f, options)
			w.last(10 * time.Second)
			w.stop()
			f.serve("addressclaims")
			options.Kinds = kinds
			w = watchFake(t, f, options)
			defer w.stop()
			w.last(10 * time.Second)
			for i, s := range w.all {
				if len(s.Claims) != 1 || s.Services.Len() != 3 || reasons(s) != "KindNotServed" {
					t.Errorf("Snapshot %d: %v, %v", i, s.Claims, s.Problems)
				}
			}
			n := len(w.all)
			f.set("addressclaims")
			f.serve("")
			if s := w.last(time.Minute); len(s.Claims) != 0 || len(s.Problems) != 0 {
				t.Errorf("when that was read again: %v, %v", s.Claims, s.Problems)
			}
			if !slices.ContainsFunc(w.all[n:], func(s *model.Snapshot) bool { return len(s.Claims) == 1 && reasons(s) == "MassDeleteHeld" }) {
				t.Error("an empty list is believed at once")
			}
		})
	}
}

// TestBareCluster watches as a node does in a cluster in which nothing of Hythe's is installed, and then is.
func TestBareCluster(t *testing.T) {
	s := kubetest.Start(t)
	f := follow(t, s.Config(), APIOptions{Kinds: NodeKinds(), Bare: true})
	f.until("Services without custom resources", func(last *model.Snapshot) bool {
		return last.Services.Len() > 0 && reasons(last) == "KindNotServed"
	})
	s.InstallCRDs(crds)
	s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: AddressClaim, metadata: {name: 203.0.113.10},
spec: {address: 203.0.113.10, pool: edge, services: [{namespace: default, name: web}], announce: [arp]}}`)
	f.until("the claim", func(last *model.Snapshot) bool { return last.Claims["203.0.113.10"] != nil && len(last.Problems) == 0 })
}
