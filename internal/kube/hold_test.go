package kube

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// readAgain returns when a node reads again what a list lacked, if each reading fails but that after the last one.
func readAgain(t *testing.T, seed uint64, fail int) (times []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		resource, _ := client.ResourceOf("Service")
		r := newReplica("Service", resource, fields.Everything(), false, seed, func() {})
		r.mu.Lock()
		r.hold([]model.Key{{Namespace: "a", Name: "b"}}, 1)
		r.mu.Unlock()
		start := time.Now()
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			_ = r.confirm(t.Context(), func(context.Context, metav1.ListOptions) (runtime.Object, error) {
				if times = append(times, time.Since(start)); len(times) > fail {
					return &corev1.ServiceList{}, nil
				}
				return nil, errors.New("etcd is busy")
			})
		}
	})
	return times
}

// TestReadAgain checks that nodes which doubt the same list do not read again all at once, and that a reading which
// fails is repeated ever more slowly.
func TestReadAgain(t *testing.T) {
	if once := readAgain(t, 1, 0); len(once) != 1 || once[0] < holdFor || once[0] > 2*holdFor+time.Second {
		t.Errorf("read again after %v", once)
	}
	first := map[time.Duration]int{}
	for seed := range uint64(30) {
		first[readAgain(t, seed+1, 0)[0].Round(time.Second)]++
	}
	if most := slices.Max(slices.Collect(maps.Values(first))); len(first) < 5 || most > 10 {
		t.Errorf("30 nodes read again at %v", first)
	}
	times := readAgain(t, 1, 100)
	if len(times) < 4 || len(times) > 7 {
		t.Fatalf("in a minute it is read at %v", times)
	}
	for i := 1; i < len(times); i++ {
		least := min(confirmAgain<<(i-1), confirmSlow)
		if wait := times[i] - times[i-1]; wait < least || wait > 2*least+time.Second {
			t.Errorf("wait %d is %s, want %s and up to as much again", i, wait, least)
		}
	}
	if !slices.Equal(times, readAgain(t, 1, 100)) {
		t.Error("the same seed gives other times")
	}
}
