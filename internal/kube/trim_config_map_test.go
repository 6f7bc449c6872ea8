package kube

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestTrimConfigMap wants lines kept, what is none marked, and files gone.
func TestTrimConfigMap(t *testing.T) {
	m := &corev1.ConfigMap{
		Data:       map[string]string{"X-A": "b", "X-File": "a\nb", "X-Long": strings.Repeat("x", longestHeader+1)},
		BinaryData: map[string][]byte{"x": {1}},
	}
	for range 2 {
		trim(m, false)
		if !used(m) || len(m.Data) != 3 || m.Data["X-A"] != "b" || m.Data["X-File"] != notHeader || m.Data["X-Long"] != notHeader || m.BinaryData != nil {
			t.Errorf("%+v", m.Data)
		}
	}
	file := &corev1.ConfigMap{Data: map[string]string{"ca.crt": "-----BEGIN\nx"}}
	if trim(file, false); used(file) {
		t.Error("a file is kept")
	}
	many := &corev1.ConfigMap{Data: map[string]string{}}
	for i := range 10 * mostHeaders {
		many.Data["X-"+strings.Repeat("a", i%300+1)] = "b"
	}
	if trim(many, false); len(many.Data) > mostHeaders+1 {
		t.Errorf("%d are kept", len(many.Data))
	}
}
