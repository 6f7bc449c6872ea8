package forward

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hythe.dev/hythe/internal/kube/client"
)

// The labels of Hythe's pods, see https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/.
const (
	PartOf         = "app.kubernetes.io/part-of=hythe"
	componentLabel = "app.kubernetes.io/component"
)

// A Pod is one of Hythe's.
type Pod struct {
	Namespace, Name string
	// Component is the label's value: "controller", "gateway", "node" or "envoy".
	Component string
	// Node is where it runs; empty for one that is not scheduled.
	Node string
	// Waits is why it cannot be reached now, in the kubelet's or scheduler's words; empty for one that runs.
	Waits string
}

// String is "NAMESPACE/NAME on NODE".
func (p Pod) String() string {
	text := p.Namespace + "/" + p.Name
	if p.Node != "" {
		text += " on " + p.Node
	}
	return text
}

// DefaultConfig says whether there is a kubeconfig where kubectl looks for one: $KUBECONFIG or ~/.kube/config.
func DefaultConfig() bool {
	return slices.ContainsFunc(clientcmd.NewDefaultClientConfigLoadingRules().Precedence, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// Config reads a kubeconfig as kubectl does: kubeconfig, or else $KUBECONFIG or ~/.kube/config, and of it the given or the
// current context.
func Config(kubeconfig, context string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return config, nil
}

// An API is an API server through which pods are reached.
type API struct {
	config *rest.Config
	core   *rest.RESTClient
}

// Open makes an API; it opens no connection yet.
func Open(config *rest.Config) (*API, error) {
	clients, err := client.Connect(config, 0)
	if err != nil {
		return nil, err
	}
	return &API{config, clients.ByGV[corev1.SchemeGroupVersion]}, nil
}

// Host is the API server's URL.
func (a *API) Host() string { return a.config.Host }

// Pods lists the pods with the label PartOf in a namespace, by component, node and name. The error says what is missing.
func (a *API) Pods(ctx context.Context, namespace string) ([]Pod, error) {
	var list corev1.PodList
	err := a.core.Get().Namespace(namespace).Resource("pods").
		Param("labelSelector", PartOf).Do(ctx).Into(&list)
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("list pods: %w\nlet this user list pods and create pods/portforward in namespace %s", err, namespace)
	case apierrors.IsUnauthorized(err):
		return nil, fmt.Errorf("list pods: %w\nthe API server does not know this user: renew the kubeconfig's credentials", err)
	case err != nil:
		return nil, fmt.Errorf("list pods: API server %s does not answer: %w", a.config.Host, err)
	case len(list.Items) == 0:
		return nil, fmt.Errorf("no pod in namespace %s has the label %s: name the namespace that Hythe was installed into by --hythe-namespace",
			namespace, PartOf)
	}
	return readPods(list.Items), nil
}

// readPods takes what counts of pods.
func readPods(list []corev1.Pod) []Pod {
	var out []Pod
	for i := range list {
		p := &list[i]
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue // another one takes its place
		}
		out = append(out, Pod{
			Namespace: p.Namespace, Name: p.Name, Component: p.Labels[componentLabel], Node: p.Spec.NodeName, Waits: waits(p),
		})
	}
	slices.SortFunc(out, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Component, b.Component), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// waits says why a pod does not run, empty if one of its containers does.
func waits(p *corev1.Pod) string {
	reason := ""
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		switch {
		case c.State.Running != nil:
			return ""
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			reason = fmt.Sprintf("container %s: %s", c.Name, c.State.Waiting.Reason)
		case c.State.Terminated != nil && c.State.Terminated.Reason != "Completed":
			reason = fmt.Sprintf("container %s ended: %s, exit code %d", c.Name, c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue && reason == "" {
			reason = "not scheduled: " + c.Message
		}
	}
	return cmp.Or(reason, string(p.Status.Phase))
}
