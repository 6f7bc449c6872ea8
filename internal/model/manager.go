package model

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
)

// WrittenHere says whether it was Hythe who wrote the addresses in a Service's status, by what the API server notes of each
// writer (API concepts, "Server-Side Apply", managedFields): it is in one object with the addresses, so always of one time.
func WrittenHere(svc *corev1.Service) bool {
	return slices.ContainsFunc(svc.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == v1alpha1.FieldManager && m.Subresource == "status" && m.FieldsV1 != nil &&
			strings.Contains(m.FieldsV1.GetRawString(), `"f:loadBalancer":{"f:ingress":`)
	})
}

// WrittenHereFields are managedFields for which WrittenHere is true, and nothing else.
func WrittenHereFields() []metav1.ManagedFieldsEntry {
	fields := &metav1.FieldsV1{}
	fields.SetRawString(`{"f:status":{"f:loadBalancer":{"f:ingress":{}}}}`)
	return []metav1.ManagedFieldsEntry{{Manager: v1alpha1.FieldManager, Subresource: "status", FieldsV1: fields}}
}
