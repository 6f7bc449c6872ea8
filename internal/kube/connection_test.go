package kube

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/lb"
)

// refusing answers requests in place of a fake server, where status says so.
func refusing(f *fakeServer, status func(r *http.Request) *metav1.Status) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		s := status(r)
		if s == nil {
			return f.RoundTrip(r)
		}
		s.TypeMeta, s.Status = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, metav1.StatusFailure
		return &http.Response{StatusCode: int(s.Code), Header: http.Header{"Content-Type": {"application/json"}}, Body: body(s), Request: r}, nil
	})
}

// inBubble runs a test with the clock of a bubble. client-go waits between errors, from the time at which the process
// started: in a bubble that is decades ahead.
func inBubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { utilruntime.HandleErrorWithContext(t.Context(), errors.New("first"), "of a bubble") })
	synctest.Test(t, test)
}

// TestOlderServer breaks a watch and goes on with an API server whose etcd was restored from a backup: it takes a watch from
// a version of its future and tells nothing. What it has must be read anew.
func TestOlderServer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFakeServer()
		f.set("services", services(4)...)
		var older atomic.Bool
		w := watchTransport(t, refusing(f, func(r *http.Request) *metav1.Status {
			query := r.URL.Query()
			if !older.Load() || query.Get("watch") != "" {
				return nil
			}
			if query.Get("resourceVersion") == "" { // the version of this list is one that the server has reached
				older.Store(false)
				return nil
			}
			return &metav1.Status{Code: http.StatusGatewayTimeout, Reason: metav1.StatusReasonTimeout, Message: "Too large resource version: 9, current: 1",
				Details: &metav1.StatusDetails{RetryAfterSeconds: 1, Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}}}
		}), APIOptions{Kinds: []string{"Service"}})
		defer w.stop()
		w.last(time.Second)
		older.Store(true)
		f.set("services", append(services(4), fakeService("of-the-backup"))...)
		f.leave(false) // ends the watch
		if s := w.last(10 * time.Second); s.Services.Len() != 5 || len(s.Problems) != 0 {
			t.Errorf("%d Services, problems %v; want 5 and none", s.Services.Len(), s.Problems)
		}
	})
}

// TestReadAnewAfterLong checks that after a long absence everything is read anew, though the watch could go on: the versions
// of a restored etcd may have caught up.
func TestReadAnewAfterLong(t *testing.T) {
	for away, want := range map[time.Duration]int{10 * time.Second: 4, time.Minute: 5} {
		inBubble(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(4)...)
			w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}})
			defer w.stop()
			w.last(time.Second)
			f.leave(true)
			w.last(away)
			f.set("services", append(services(4), fakeService("of-the-backup"))...) // and no watch tells
			f.leave(false)
			if s := w.last(20 * time.Second); s.Services.Len() != want || len(s.Problems) != 0 {
				t.Errorf("away for %s: %d Services, problems %v; want %d and none", away, s.Services.Len(), s.Problems, want)
			}
		})
	}
}

// TestForbidden checks that a kind which may not be listed, or not be watched, stays as it was and is a Problem that says
// what to do, and that the others go on.
func TestForbidden(t *testing.T) {
	for _, verb := range []string{"list", "watch"} {
		inBubble(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(3)...)
			f.set("addresspools", map[string]any{"apiVersion": v1alpha1.APIVersion, "kind": "AddressPool", "metadata": map[string]any{"name": "edge", "resourceVersion": "1"},
				"spec": map[string]any{"addresses": []any{"203.0.113.10"}}})
			var forbidden atomic.Bool
			w := watchTransport(t, refusing(f, func(r *http.Request) *metav1.Status {
				if !forbidden.Load() || !strings.Contains(r.URL.Path, "addresspools") || verb == "watch" && r.URL.Query().Get("watch") == "" {
					return nil
				}
				return &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: "User cannot " + verb + " resource addresspools"}
			}), APIOptions{Kinds: []string{"Service", "AddressPool"}})
			defer w.stop()
			w.last(time.Second)
			forbidden.Store(true)
			f.leave(false)
			s := w.last(30 * time.Second)
			if len(s.Pools) != 1 || reasons(s) != ReasonForbidden || w.FromCache() || w.Age() < 20*time.Second {
				t.Fatalf("%s: %d pools, problems %v, from cache %v, age %s", verb, len(s.Pools), s.Problems, w.FromCache(), w.Age())
			}
			want := "give the role of this process the verbs get, list and watch on addresspools.hythe.dev: User cannot " + verb + " resource addresspools"
			if !strings.HasSuffix(s.Problems[0].Message, want) {
				t.Errorf("problem %s", s.Problems[0])
			}
			n := w.count()
			f.send("services", "ADDED", fakeService("more"))
			if s = w.last(time.Second); s.Services.Len() != 4 {
				t.Errorf("%s: %d Services", verb, s.Services.Len())
			}
			if w.last(10 * time.Minute); w.count() != n+1 {
				t.Errorf("%s: %d Snapshots while nothing changed", verb, w.count()-n-1)
			}
			forbidden.Store(false)
			if s = w.last(20 * time.Second); len(s.Problems) != 0 || w.Age() != 0 {
				t.Errorf("%s: problems %v, age %s, when it may be read again", verb, s.Problems, w.Age())
			}
		})
	}
}

// TestAwayKeepsVIP lets the API server be away for an hour. The agent of a node keeps what it needs to announce a VIP, and
// has it again after a restart in the meantime.
func TestAwayKeepsVIP(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := newFakeServer()
		f.set("services", services(2)...)
		f.set("nodes", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}})
		f.set("addressclaims", map[string]any{"apiVersion": v1alpha1.APIVersion, "kind": "AddressClaim", "metadata": map[string]any{"name": "203.0.113.10"},
			"spec": map[string]any{"address": "203.0.113.10", "pool": "edge", "announce": []any{"arp"}, "services": []any{map[string]any{"namespace": "default", "name": "s0"}}}})
		options := APIOptions{Kinds: NodeKinds(), CacheDir: t.TempDir()}
		w := watchFake(t, f, options)
		vips := func(after time.Duration) string {
			s := w.last(after)
			if s == nil {
				return "no Snapshot"
			}
			v, _ := lb.VIPs(s, "n1")
			return fmt.Sprintf("%+v", v)
		}
		want := vips(10 * time.Second)
		if !strings.Contains(want, "203.0.113.10") {
			t.Fatalf("VIPs %s", want)
		}
		f.leave(true)
		if got := vips(time.Hour); got != want || w.count() != 2 {
			t.Errorf("%d Snapshots, VIPs %s; before %s", w.count(), got, want)
		}
		w.stop()
		w = watchFake(t, f, options)
		defer w.stop()
		if got := vips(time.Hour); got != want {
			t.Errorf("after a restart: VIPs %s; before %s", got, want)
		}
	})
}

// TestReadOnce checks that a read which a server refuses, and wants to be asked again, comes back at once.
func TestReadOnce(t *testing.T) {
	var asked atomic.Int64
	config := &client.RESTConfig{Host: "https://fake", WrapTransport: func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
		})
	}}
	c, err := client.Connect(config, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ByGV[corev1.SchemeGroupVersion].Get().Resource("services").Do(t.Context()).Error(); err == nil || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}
