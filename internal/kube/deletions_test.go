package kube

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
)

func fakeClaim(i int) map[string]any {
	address := fmt.Sprint("203.0.113.", i)
	return map[string]any{"kind": "AddressClaim", "apiVersion": v1alpha1.APIVersion, "metadata": map[string]any{"name": address, "resourceVersion": "1"},
		"spec": map[string]any{"address": address, "pool": "edge", "services": []any{map[string]any{"namespace": "a", "name": "b"}}, "announce": []any{"arp"}}}
}

func fakeClaims(n int) (out []any) {
	for i := range n {
		out = append(out, fakeClaim(i))
	}
	return out
}

// TestDeletions deletes claims: one of several goes at once, the last after a moment, and all that go with their definition
// stay, until the kind is back and who writes it had its time.
func TestDeletions(t *testing.T) {
	clientErrors(t)
	const resource = "addressclaims"
	run := func(name string, n int, bare bool, do func(*testing.T, *fakeServer, *watching)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeServer()
				f.set(resource, fakeClaims(n)...)
				w := watchFake(t, f, APIOptions{Kinds: []string{"AddressClaim"}, Bare: bare})
				defer w.stop()
				w.last(time.Second)
				do(t, f, w)
			})
		})
	}
	want := func(t *testing.T, s *model.Snapshot, claims int, problems string) {
		t.Helper()
		if len(s.Claims) != claims || reasons(s) != problems {
			t.Errorf("%d claims, problems %v, want %d and %q", len(s.Claims), s.Problems, claims, problems)
		}
	}
	run("one of several", 5, true, func(t *testing.T, f *fakeServer, w *watching) {
		f.send(resource, "DELETED", fakeClaim(1))
		want(t, w.last(700*time.Millisecond), 4, "")
	})
	run("the last", 1, true, func(t *testing.T, f *fakeServer, w *watching) {
		f.send(resource, "DELETED", fakeClaim(0))
		want(t, w.last(500*time.Millisecond), 1, "")
		want(t, w.last(2*time.Second), 0, "")
	})
	run("made again", 1, true, func(t *testing.T, f *fakeServer, w *watching) {
		f.send(resource, "DELETED", fakeClaim(0))
		time.Sleep(time.Second)
		f.send(resource, "ADDED", fakeClaim(0))
		want(t, w.last(time.Minute), 1, "")
	})
	for _, bare := range []bool{true, false} {
		run(fmt.Sprintf("the definition, bare %v", bare), 2, bare, func(t *testing.T, f *fakeServer, w *watching) {
			f.set(resource)
			f.mu.Lock()
			f.terminating = resource
			f.mu.Unlock()
			for _, c := range fakeClaims(2) {
				f.send(resource, "DELETED", c)
			}
			want(t, w.last(5*time.Second), 2, "")
			f.serve(resource)
			f.gone(resource)
			want(t, w.last(time.Minute), 2, "KindNotServed")
			f.mu.Lock()
			f.terminating = ""
			f.mu.Unlock()
			f.serve("")
			const again = 7 * time.Second // the replica asks again after at most 3 s, and as much of chance
			if !bare {                    // who writes claims sees at once that they are gone
				want(t, w.last(again), 0, "")
				return
			}
			want(t, w.last(again), 2, "MassDeleteHeld")
			f.send(resource, "ADDED", fakeClaim(0))
			want(t, w.last(time.Minute), 1, "")
		})
	}
}

// testClaimsDefinition deletes the definition of claims under a node that runs, and brings it and a claim back.
// TestReportsDeleted deletes Reports, one of several and all. Their agents write them again within half a minute: until then
// the last ones count, but not for who takes them all away.
func TestReportsDeleted(t *testing.T) {
	clientErrors(t)
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprintf("keep %v", keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports []any
				for i := range 3 {
					reports = append(reports, map[string]any{"kind": "Report", "apiVersion": v1alpha1.APIVersion,
						"metadata": map[string]any{"name": fmt.Sprint("gateway-n", i)}, "component": "gateway", "node": fmt.Sprint("n", i)})
				}
				f := newFakeServer()
				f.set("reports", reports...)
				w := watchFake(t, f, APIOptions{Kinds: []string{"Report"}, KeepReports: keep})
				defer w.stop()
				w.last(time.Second)
				want := func(after time.Duration, kept, gone int) {
					t.Helper()
					if !keep {
						kept = gone
					}
					if s := w.last(after); len(s.Reports) != kept {
						t.Errorf("%d Reports, want %d", len(s.Reports), kept)
					}
				}
				f.send("reports", "DELETED", reports[0])
				want(35*time.Second, 3, 2)
				f.send("reports", "ADDED", reports[0])
				want(time.Minute, 3, 3)
				for _, r := range reports {
					f.send("reports", "DELETED", r)
				}
				want(35*time.Second, 3, 0)
				f.send("reports", "ADDED", reports[0])
				want(20*time.Second, 1, 1) // those of the others are gone
			})
		})
	}
}

func testClaimsDefinition(t *testing.T, s *kubetest.Server) {
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/addressclaims.hythe.dev"
	const claim = `{apiVersion: hythe.dev/v1alpha1, kind: AddressClaim, metadata: {name: 203.0.113.77},
spec: {address: 203.0.113.77, pool: edge, services: [{namespace: shop, name: web}], announce: [arp]}}`
	has := func(s *model.Snapshot) bool { return s.Claims["203.0.113.77"] != nil }
	s.Apply(claim)
	f := follow(t, s.Config(), APIOptions{Kinds: NodeKinds(), Bare: true})
	f.until("the claim", has)
	n := len(f.snapshots()) - 1
	if code, body := s.Do(http.MethodDelete, path, nil); code >= 300 {
		t.Fatalf("delete definition: %d: %s", code, body)
	}
	f.until("a Problem", hasReason(ReasonKindNotServed, true))
	s.Apply(service("without-claims"))
	f.until("a Service", hasService("without-claims"))
	s.InstallCRDs(crds)
	f.until("doubt", hasReason("MassDeleteHeld", true))
	s.Apply(claim)
	f.until("the end of doubt", func(s *model.Snapshot) bool { return len(s.Problems) == 0 })
	for _, got := range f.snapshots()[n:] {
		if !has(got) {
			t.Fatalf("a Snapshot lacks the claim; problems %v", got.Problems)
		}
	}
}
