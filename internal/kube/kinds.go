package kube

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hythe.dev/hythe/api/v1alpha1"
)

// ControllerKinds is what the controller watches. Secrets are not among it.
func ControllerKinds() []string {
	return []string{"Ingress", "Service", "Node", "AddressPool", "AddressClaim", "Report"}
}

// GatewayKinds is what a gateway watches.
func GatewayKinds() []string {
	return []string{"Ingress", "IngressClass", "Service", "EndpointSlice", "Secret"}
}

// NodeKinds is what the agent of a node watches.
func NodeKinds() []string { return []string{"Service", "EndpointSlice", "Node", "AddressClaim"} }

// A resource is how the API names and types a kind.
type resource struct {
	gv        schema.GroupVersion
	name      string         // in URLs
	clustered bool           // without namespace
	object    runtime.Object // empty, to be copied
	list      runtime.Object
}

func resourceOf(kind string) (resource, bool) {
	switch kind {
	case "Ingress":
		return resource{networkingv1.SchemeGroupVersion, "ingresses", false, &networkingv1.Ingress{}, &networkingv1.IngressList{}}, true
	case "IngressClass":
		return resource{networkingv1.SchemeGroupVersion, "ingressclasses", true, &networkingv1.IngressClass{}, &networkingv1.IngressClassList{}}, true
	case "Service":
		return resource{corev1.SchemeGroupVersion, "services", false, &corev1.Service{}, &corev1.ServiceList{}}, true
	case "Secret":
		return resource{corev1.SchemeGroupVersion, "secrets", false, &corev1.Secret{}, &corev1.SecretList{}}, true
	case "Node":
		return resource{corev1.SchemeGroupVersion, "nodes", true, &corev1.Node{}, &corev1.NodeList{}}, true
	case "EndpointSlice":
		return resource{discoveryv1.SchemeGroupVersion, "endpointslices", false, &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{}}, true
	case "AddressPool":
		return resource{v1alpha1.GroupVersion, "addresspools", true, &v1alpha1.AddressPool{}, &v1alpha1.AddressPoolList{}}, true
	case "AddressClaim":
		return resource{v1alpha1.GroupVersion, "addressclaims", true, &v1alpha1.AddressClaim{}, &v1alpha1.AddressClaimList{}}, true
	case "Report":
		return resource{v1alpha1.GroupVersion, "reports", true, &v1alpha1.Report{}, &v1alpha1.ReportList{}}, true
	}
	return resource{}, false
}
