package cluster

import (
	"net/netip"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/api/v1alpha1"
)

// Key names a namespaced object.
type Key = types.NamespacedName

// Objects are the manifests that the lab acts upon.
type Objects struct {
	Services       map[Key]*corev1.Service
	Slices         map[Key]*discoveryv1.EndpointSlice
	Secrets        map[Key]*corev1.Secret
	Ingresses      map[Key]*networkingv1.Ingress
	IngressClasses map[string]*networkingv1.IngressClass
	Pools          map[string]*v1alpha1.AddressPool
	Workloads      map[WorkloadKey]*Workload
}

// NewObjects returns Objects without anything in them.
func NewObjects() *Objects {
	return &Objects{
		Services:       map[Key]*corev1.Service{},
		Slices:         map[Key]*discoveryv1.EndpointSlice{},
		Secrets:        map[Key]*corev1.Secret{},
		Ingresses:      map[Key]*networkingv1.Ingress{},
		IngressClasses: map[string]*networkingv1.IngressClass{},
		Pools:          map[string]*v1alpha1.AddressPool{},
		Workloads:      map[WorkloadKey]*Workload{},
	}
}

// A WorkloadKey names something that pods are made of.
type WorkloadKey struct {
	Kind      string
	Namespace string
	Name      string
}

// A Workload is a Deployment, ReplicaSet, StatefulSet, DaemonSet or a Pod of its own.
type Workload struct {
	Key      WorkloadKey
	Replicas int // not of a DaemonSet
	Template corev1.PodTemplateSpec
	// MaxSurge and MaxUnavailable are those of a Deployment's rolling update, with defaults applied; of a DaemonSet's
	// only MaxSurge matters, and only whether it is zero.
	MaxSurge, MaxUnavailable intstr.IntOrString
	// Recreate ends all old pods before the first new one starts.
	Recreate bool
}

// daemon says whether there is one pod on each node.
func (w *Workload) daemon() bool { return w.Key.Kind == "DaemonSet" }

// A Pod is one pod that runs, starts or ends.
type Pod struct {
	Key   Key
	Owner WorkloadKey
	// Hash is that of the template that the pod was made of.
	Hash string
	// Number orders pods by creation.
	Number int
	Node   string
	Labels map[string]string
	Spec   corev1.PodSpec

	Address     netip.Addr // once attached
	Ready       bool
	Terminating bool
}

// A Node is what placement needs to know of a node.
type Node struct {
	Name   string
	Labels map[string]string
}

// An Action is what Step wants done.
type Action struct {
	// Start are new pods; End are pods that should begin to terminate.
	Start []*Pod
	End   []Key
}

// defaultRolling is what Kubernetes uses when a Deployment says nothing.
func defaultRolling() *appsv1.RollingUpdateDeployment {
	quarter := intstr.FromString("25%")
	return &appsv1.RollingUpdateDeployment{MaxSurge: &quarter, MaxUnavailable: &quarter}
}
