package writer

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hythe.dev/hythe/internal/contain"
)

// setNetworks says of nodes that their network is in place.
func (w *Writer) setNetworks(ctx context.Context, nodes []string) (errs []error) {
	for _, node := range nodes {
		if err := contain.Call(func() error { return w.networkAvailable(ctx, node) }); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// networkAvailable sets the condition NetworkUnavailable of a node to False: the taint that goes with it keeps pods away.
// It is the controller that writes it, since the right to write the status of one node is that for all nodes. Nobody
// sets it to True: a node whose agent is away keeps its network.
func (w *Writer) networkAvailable(ctx context.Context, node string) error {
	now := metav1.Now()
	condition := corev1.NodeCondition{
		Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, LastHeartbeatTime: now, LastTransitionTime: now,
		Reason: "HytheIsUp", Message: "Hythe's overlay is in place on this node",
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{condition}}})
	if err == nil {
		// Conditions are merged by their type.
		err = w.clients.ByGV[corev1.SchemeGroupVersion].Patch(types.StrategicMergePatchType).Resource("nodes").Name(node).
			SubResource("status").Body(patch).Do(ctx).Error()
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write condition NetworkUnavailable of Node %s: %w", node, err)
	}
	return nil
}
