package proxy

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

// TestByAge: an object without a creation time is a newcomer that nobody noted yet, here as in the gateway and the pools.
func TestByAge(t *testing.T) {
	all := map[model.Key]*corev1.Service{}
	for name, year := range map[string]int{"a": 0, "b": 2002, "c": 2001, "d": 0} {
		s := &corev1.Service{}
		if year > 0 {
			s.CreationTimestamp = metav1.NewTime(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		}
		all[model.Key{Name: name}] = s
	}
	var is []string
	for _, key := range byAge(model.ObjectsOf(all)) {
		is = append(is, key.Name)
	}
	if want := []string{"c", "b", "a", "d"}; !slices.Equal(is, want) {
		t.Errorf("order %v, want %v", is, want)
	}
}
