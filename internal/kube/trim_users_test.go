package kube

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestTrimUsers wants the users of an Opaque Secret kept, and nothing else of it.
func TestTrimUsers(t *testing.T) {
	s := &corev1.Secret{Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"auth": []byte("x"), "password": []byte("y")}}
	trimSecret(s)
	if keys := slices.Collect(maps.Keys(s.Data)); !used(s) || !slices.Equal(keys, []string{"auth"}) {
		t.Error(keys, used(s))
	}
	token := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"auth": []byte("x")}}
	if trimSecret(token); used(token) {
		t.Error("a Secret of another type is kept")
	}
}
