package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	nodes       = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	pods        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	reports     = schema.GroupVersionResource{Group: "hythe.dev", Version: "v1alpha1", Resource: "reports"}
	leases      = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	daemonSets  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
)

// FieldManager is who the API server notes as the author of what is applied.
const FieldManager = "hythe-chart"

// poll is how often the API is asked whether something has come about.
const poll = time.Second

// A Cluster is where the chart is installed.
type Cluster struct{ client dynamic.Interface }

// New makes a Cluster; it opens no connection yet.
func New(config *rest.Config) (*Cluster, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", err)
	}
	return &Cluster{client: client}, nil
}

// Definitions applies CustomResourceDefinitions by server-side apply (KEP-555), each a YAML document. It goes on after an
// error and returns all of them.
func (c *Cluster) Definitions(ctx context.Context, documents [][]byte) error {
	var errs []error
	for _, document := range documents {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			errs = append(errs, fmt.Errorf("read definition: %w", err))
			continue
		}
		data, err := o.MarshalJSON()
		if err == nil {
			force := true
			_, err = c.client.Resource(definitions).Patch(ctx, o.GetName(), types.ApplyPatchType, data,
				metav1.PatchOptions{FieldManager: FieldManager, Force: &force})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("apply definition %s: %w", o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// Stop scales a Deployment to none. One that does not exist needs no stop.
func (c *Cluster) Stop(ctx context.Context, namespace, name string) error {
	_, err := c.client.Resource(deployments).Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"replicas":0}}`),
		metav1.PatchOptions{FieldManager: FieldManager}, "scale")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("scale Deployment %s/%s to none: %w", namespace, name, err)
	}
	return nil
}

// overdue is how long after its time a pod counts as gone: its kubelet does not answer, and nobody else ends it.
const overdue = 30 * time.Second

// Gone waits until namespace has no pod with the labels of selector; one that should have ended long ago, as those of a
// dead node, is not waited for. What the API server fails to answer is asked again until ctx is done.
func (c *Cluster) Gone(ctx context.Context, namespace, selector string) error {
	return until(ctx, func(ctx context.Context) error {
		list, err := c.client.Resource(pods).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		names := make([]string, 0, len(list.Items))
		for _, p := range list.Items {
			if end := p.GetDeletionTimestamp(); end != nil && time.Since(end.Time) > overdue {
				continue
			}
			names = append(names, p.GetName())
		}
		if len(names) > 0 {
			return fmt.Errorf("wait for the end of %d pods in namespace %s: %s", len(names), namespace, strings.Join(names, ", "))
		}
		return nil
	})
}

// DeleteReports deletes all Reports: processes that ended after the controller may have written one more.
func (c *Cluster) DeleteReports(ctx context.Context) error {
	err := c.client.Resource(reports).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil && !apierrors.IsNotFound(err) { // the definition may be gone already
		return fmt.Errorf("delete Reports: %w", err)
	}
	return nil
}

// DeleteLease deletes the Lease of controllers that have ended: nobody else would.
func (c *Cluster) DeleteLease(ctx context.Context, namespace, name string) error {
	err := c.client.Resource(leases).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete Lease %s/%s: %w", namespace, name, err)
	}
	return nil
}

// until calls check until it returns nil. When ctx is done it returns the last error.
func until(ctx context.Context, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(poll):
		}
	}
}
