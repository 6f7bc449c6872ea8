package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// DaemonSetReady waits until each pod of a DaemonSet is ready, on all nodes that it is for but those that are not Ready
// themselves: nothing starts there. It returns the names of these. A DaemonSet that does not exist has no pods.
func (c *Cluster) DaemonSetReady(ctx context.Context, namespace, name string) (skipped []string, err error) {
	err = until(ctx, func(ctx context.Context) error {
		o, err := c.client.Resource(daemonSets).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("get DaemonSet %s/%s: %w", namespace, name, err)
		}
		waiting, dead, err := c.unready(ctx, o)
		if err != nil {
			return err
		}
		if len(waiting) > 0 {
			return fmt.Errorf("wait for DaemonSet %s/%s on %d nodes: %s", namespace, name, len(waiting), strings.Join(waiting, ", "))
		}
		skipped = dead
		return nil
	})
	return skipped, err
}

// unready names the nodes on which a DaemonSet's pod is not ready: those that are waited for, and those that are not
// Ready themselves.
func (c *Cluster) unready(ctx context.Context, daemonSet *unstructured.Unstructured) (waiting, dead []string, err error) {
	wanted, _, _ := unstructured.NestedInt64(daemonSet.Object, "status", "desiredNumberScheduled")
	observed, _, _ := unstructured.NestedInt64(daemonSet.Object, "status", "observedGeneration")
	if observed != daemonSet.GetGeneration() {
		return nil, nil, errors.New("wait for the DaemonSet controller")
	}
	labels, _, _ := unstructured.NestedStringMap(daemonSet.Object, "spec", "selector", "matchLabels")
	list, err := c.client.Resource(pods).Namespace(daemonSet.GetNamespace()).List(ctx,
		metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels})})
	if err != nil {
		return nil, nil, fmt.Errorf("list pods: %w", err)
	}
	alive, err := c.readyNodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	placed := map[string]bool{} // by node, whether the pod is ready
	for _, item := range list.Items {
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &pod); err != nil {
			return nil, nil, fmt.Errorf("read pod %s: %w", item.GetName(), err)
		}
		if node := nodeOf(&pod); node != "" {
			placed[node] = placed[node] || podReady(&pod)
		}
	}
	if int64(len(placed)) < wanted {
		return nil, nil, fmt.Errorf("wait for pods of DaemonSet %s: there are %d, for %d nodes", daemonSet.GetName(), len(placed), wanted)
	}
	for node, ready := range placed {
		switch up, exists := alive[node]; {
		case ready || !exists:
		case up:
			waiting = append(waiting, node)
		default:
			dead = append(dead, node)
		}
	}
	slices.Sort(waiting)
	slices.Sort(dead)
	return waiting, dead, nil
}

// readyNodes says of each Node whether it is Ready.
func (c *Cluster) readyNodes(ctx context.Context) (map[string]bool, error) {
	list, err := c.client.Resource(nodes).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	out := map[string]bool{}
	for _, item := range list.Items {
		var node corev1.Node
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &node); err != nil {
			return nil, fmt.Errorf("read node %s: %w", item.GetName(), err)
		}
		out[node.Name] = slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	}
	return out, nil
}

// nodeOf is the node that a DaemonSet's pod is for, also before it is scheduled.
func nodeOf(pod *corev1.Pod) string {
	affinity := pod.Spec.Affinity
	if pod.Spec.NodeName != "" || affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return pod.Spec.NodeName
	}
	for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return ""
}

func podReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
