package kube

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTrimNode keeps of a Node what somebody uses, by which boots are told apart too, and nothing that changes all the time.
func TestTrimNode(t *testing.T) {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: map[string]string{"a": "b"}},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot", KernelVersion: "6.12"},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Now()}, {Type: corev1.NodeDiskPressure}},
		},
	}
	trim(n, true)
	want := corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: "boot"}, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady}}}
	if !reflect.DeepEqual(n.Status, want) || n.Annotations != nil {
		t.Errorf("%+v", n)
	}
	if got, problems := convertNode(n); got.BootID != "boot" || len(problems) > 0 {
		t.Errorf("%+v, problems %v", got, problems)
	}
}
