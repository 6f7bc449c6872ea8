package kube

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// trim removes what nobody uses from a fresh object, so that thousands of them stay small and an update of the rest
// is no change. Trimming twice changes nothing.
func trim(object metav1.Object, status bool) {
	setType(object)
	trimManagers(object, status)
	object.SetResourceVersion("")
	object.SetGeneration(0)
	object.SetGenerateName("")
	object.SetSelfLink("")
	object.SetOwnerReferences(nil)
	trimFinalizers(object, status)
	switch o := object.(type) {
	case *networkingv1.Ingress:
		o.Labels, o.Annotations = nil, withoutLastApplied(o.Annotations)
		if !status {
			o.Status = networkingv1.IngressStatus{}
		}
	case *networkingv1.IngressClass:
		o.Labels, o.Annotations = nil, withoutLastApplied(o.Annotations)
	case *networkingv1.ServiceCIDR:
		o.Labels, o.Annotations, o.Status = nil, nil, networkingv1.ServiceCIDRStatus{}
	case *corev1.Service:
		o.Annotations = withoutLastApplied(o.Annotations)
		o.Status.Conditions = nil
		if !status && !ofAnother(o) {
			o.Status = corev1.ServiceStatus{}
		}
	case *corev1.Secret:
		trimSecret(o)
	case *corev1.ConfigMap:
		trimConfigMap(o)
	case *corev1.Node:
		trimNode(o, status)
	case *v1alpha1.AddressPool:
		o.Labels, o.Annotations = nil, nil
		if !status {
			o.Status = v1alpha1.AddressPoolStatus{}
		}
	case *v1alpha1.AddressClaim, *v1alpha1.Report, *v1alpha1.GatewayConfig:
		object.SetLabels(nil)
		object.SetAnnotations(nil)
	}
}

// trimManagers keeps of a Service whether the addresses in its status are of Hythe's hand.
func trimManagers(object metav1.Object, status bool) {
	var kept []metav1.ManagedFieldsEntry
	if o, ok := object.(*corev1.Service); ok && status && len(o.Status.LoadBalancer.Ingress) > 0 && model.WrittenHere(o) {
		kept = model.WrittenHereFields()
	}
	object.SetManagedFields(kept)
}

// ofAnother says whether another load balancer may write the status of a Service: nodes may have to serve its address.
func ofAnother(o *corev1.Service) bool {
	class := o.Spec.LoadBalancerClass
	return o.Spec.Type == corev1.ServiceTypeLoadBalancer && (class == nil || *class != v1alpha1.LoadBalancerClass)
}

// trimFinalizers keeps the one that the controller writes.
func trimFinalizers(object metav1.Object, status bool) {
	_, service := object.(*corev1.Service)
	var kept []string
	for _, f := range object.GetFinalizers() {
		if service && status && f == v1alpha1.CleanupFinalizer {
			kept = []string{f}
		}
	}
	object.SetFinalizers(kept)
}

func withoutLastApplied(annotations map[string]string) map[string]string {
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	if len(annotations) == 0 {
		return nil
	}
	return annotations
}

// htpasswdKey is where ingress-nginx looks for users and hashes of their passwords.
const htpasswdKey = "auth"

// crlKey is where ingress-nginx looks for lists of revoked certificates, stapleKey where Envoy's controllers look for what the
// authority says of a certificate.
const (
	crlKey    = "ca.crl"
	stapleKey = "tls.ocsp-staple"
)

// trimSecret keeps certificate, key, the authorities in ca.crt with what they revoked, and users. Of the rest of a Secret nothing stays in memory.
func trimSecret(o *corev1.Secret) {
	data := map[string][]byte{}
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, corev1.ServiceAccountRootCAKey, crlKey, stapleKey, htpasswdKey} {
		if value, ok := o.Data[key]; ok {
			data[key] = value
		}
	}
	o.Labels, o.Annotations, o.Data, o.StringData, o.Immutable = nil, nil, data, nil, nil
}

// used says whether a trimmed object is kept: of Secrets those of type kubernetes.io/tls and others that hold both a
// certificate and a key, or users, or authorities; of ConfigMaps those with anything that can be a header.
func used(object metav1.Object) bool {
	if o, ok := object.(*corev1.ConfigMap); ok {
		return slices.ContainsFunc(slices.Collect(maps.Values(o.Data)), func(v string) bool { return v != notHeader })
	}
	o, ok := object.(*corev1.Secret)
	return !ok || o.Type == corev1.SecretTypeTLS || len(o.Data[corev1.TLSCertKey]) > 0 && len(o.Data[corev1.TLSPrivateKeyKey]) > 0 ||
		o.Type == corev1.SecretTypeOpaque && (len(o.Data[htpasswdKey]) > 0 || len(o.Data[corev1.ServiceAccountRootCAKey]) > 0)
}

const (
	// longestHeader and mostHeaders bound what is kept of a ConfigMap, in bytes and keys.
	longestHeader, mostHeaders = 4096, 100
	// notHeader is in the place of a value that no header can have.
	notHeader = "\n"
)

// trimConfigMap keeps what can be headers: lines. Most ConfigMaps hold files, of which nothing stays in memory; a value that is
// none is marked, so that it is not taken for absent.
func trimConfigMap(o *corev1.ConfigMap) {
	data := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(o.Data)) {
		value := o.Data[name]
		if len(value) > longestHeader || strings.ContainsAny(value, "\r\n\x00") || len(data) >= mostHeaders {
			value = notHeader
		}
		if data[name] = value; len(data) > mostHeaders {
			break
		}
	}
	o.Labels, o.Annotations, o.Data, o.BinaryData, o.Immutable = nil, nil, data, nil, nil
}

// trimNode keeps no time of a heartbeat: the kubelet writes them again and again. That of a transition to or from Ready
// tells of one that no watch told of, see disruption.
func trimNode(o *corev1.Node, status bool) {
	o.Annotations = nil
	var taints []corev1.Taint
	for _, t := range o.Spec.Taints {
		if toBeDeleted(t) {
			taints = []corev1.Taint{{Key: t.Key}}
		}
	}
	o.Spec = corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs, Unschedulable: o.Spec.Unschedulable, Taints: taints}
	var addresses []corev1.NodeAddress
	for _, a := range o.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			addresses = append(addresses, a)
		}
	}
	var conditions []corev1.NodeCondition
	for _, c := range o.Status.Conditions {
		if status && c.Type == corev1.NodeNetworkUnavailable {
			conditions = append(conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
		}
		if c.Type == corev1.NodeReady {
			conditions = append(conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime})
		}
	}
	o.Status = corev1.NodeStatus{Addresses: addresses, Conditions: conditions, NodeInfo: corev1.NodeSystemInfo{BootID: o.Status.NodeInfo.BootID}}
}

// setType fills in what typed clients leave out and files have.
func setType(object metav1.Object) {
	kind := kindOf(object)
	if r, ok := client.ResourceOf(kind); ok {
		object.(runtime.Object).GetObjectKind().SetGroupVersionKind(r.GV.WithKind(kind))
	}
}
