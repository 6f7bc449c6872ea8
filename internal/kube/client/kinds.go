package client

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hythe.dev/hythe/api/v1alpha1"
)

// A Resource is how the API names and types a kind.
type Resource struct {
	GV        schema.GroupVersion
	Name      string         // in URLs
	Clustered bool           // without namespace
	Object    runtime.Object // empty, to be copied
	List      runtime.Object
}

// ResourceOf returns how the API names a kind that Hythe uses.
func ResourceOf(kind string) (Resource, bool) {
	switch kind {
	case "Ingress":
		return Resource{networkingv1.SchemeGroupVersion, "ingresses", false, &networkingv1.Ingress{}, &networkingv1.IngressList{}}, true
	case "IngressClass":
		return Resource{networkingv1.SchemeGroupVersion, "ingressclasses", true, &networkingv1.IngressClass{}, &networkingv1.IngressClassList{}}, true
	case "Service":
		return Resource{corev1.SchemeGroupVersion, "services", false, &corev1.Service{}, &corev1.ServiceList{}}, true
	case "Secret":
		return Resource{corev1.SchemeGroupVersion, "secrets", false, &corev1.Secret{}, &corev1.SecretList{}}, true
	case "ConfigMap":
		return Resource{corev1.SchemeGroupVersion, "configmaps", false, &corev1.ConfigMap{}, &corev1.ConfigMapList{}}, true
	case "Node":
		return Resource{corev1.SchemeGroupVersion, "nodes", true, &corev1.Node{}, &corev1.NodeList{}}, true
	case "EndpointSlice":
		return Resource{discoveryv1.SchemeGroupVersion, "endpointslices", false, &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{}}, true
	case "AddressPool":
		return Resource{v1alpha1.GroupVersion, "addresspools", true, &v1alpha1.AddressPool{}, &v1alpha1.AddressPoolList{}}, true
	case "AddressClaim":
		return Resource{v1alpha1.GroupVersion, "addressclaims", true, &v1alpha1.AddressClaim{}, &v1alpha1.AddressClaimList{}}, true
	case "GatewayConfig":
		return Resource{v1alpha1.GroupVersion, "gatewayconfigs", true, &v1alpha1.GatewayConfig{}, &v1alpha1.GatewayConfigList{}}, true
	case "Report":
		return Resource{v1alpha1.GroupVersion, "reports", true, &v1alpha1.Report{}, &v1alpha1.ReportList{}}, true
	}
	return Resource{}, false
}
