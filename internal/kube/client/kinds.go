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
	Optional  bool // an API server that does not serve it has none
	Later     bool // earlier versions did not read it: nothing that they served depends on it
}

// ResourceOf returns how the API names a kind that Hythe uses.
func ResourceOf(kind string) (Resource, bool) {
	switch kind {
	case "Ingress":
		return Resource{GV: networkingv1.SchemeGroupVersion, Name: "ingresses", Object: &networkingv1.Ingress{}, List: &networkingv1.IngressList{}}, true
	case "IngressClass":
		return Resource{GV: networkingv1.SchemeGroupVersion, Name: "ingressclasses", Clustered: true, Object: &networkingv1.IngressClass{}, List: &networkingv1.IngressClassList{}}, true
	case "ServiceCIDR": // Kubernetes 1.33
		return Resource{GV: networkingv1.SchemeGroupVersion, Name: "servicecidrs", Clustered: true, Object: &networkingv1.ServiceCIDR{}, List: &networkingv1.ServiceCIDRList{}, Optional: true}, true
	case "Service":
		return Resource{GV: corev1.SchemeGroupVersion, Name: "services", Object: &corev1.Service{}, List: &corev1.ServiceList{}}, true
	case "Secret":
		return Resource{GV: corev1.SchemeGroupVersion, Name: "secrets", Object: &corev1.Secret{}, List: &corev1.SecretList{}}, true
	case "ConfigMap":
		return Resource{GV: corev1.SchemeGroupVersion, Name: "configmaps", Object: &corev1.ConfigMap{}, List: &corev1.ConfigMapList{}, Later: true}, true
	case "Node":
		return Resource{GV: corev1.SchemeGroupVersion, Name: "nodes", Clustered: true, Object: &corev1.Node{}, List: &corev1.NodeList{}}, true
	case "EndpointSlice":
		return Resource{GV: discoveryv1.SchemeGroupVersion, Name: "endpointslices", Object: &discoveryv1.EndpointSlice{}, List: &discoveryv1.EndpointSliceList{}}, true
	case "AddressPool":
		return Resource{GV: v1alpha1.GroupVersion, Name: "addresspools", Clustered: true, Object: &v1alpha1.AddressPool{}, List: &v1alpha1.AddressPoolList{}}, true
	case "AddressClaim":
		return Resource{GV: v1alpha1.GroupVersion, Name: "addressclaims", Clustered: true, Object: &v1alpha1.AddressClaim{}, List: &v1alpha1.AddressClaimList{}}, true
	case "GatewayConfig":
		return Resource{GV: v1alpha1.GroupVersion, Name: "gatewayconfigs", Clustered: true, Object: &v1alpha1.GatewayConfig{}, List: &v1alpha1.GatewayConfigList{}, Later: true}, true
	case "Report":
		return Resource{GV: v1alpha1.GroupVersion, Name: "reports", Clustered: true, Object: &v1alpha1.Report{}, List: &v1alpha1.ReportList{}}, true
	}
	return Resource{}, false
}
