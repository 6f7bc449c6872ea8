package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// AddToScheme makes the types of this package known to a scheme, so that clients can read and write them.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&AddressPool{}, &AddressPoolList{}, &AddressClaim{}, &AddressClaimList{}, &Report{}, &ReportList{},
		&GatewayConfig{}, &GatewayConfigList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// An AddressPoolList is a list of AddressPools.
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressPool `json:"items"`
}

// An AddressClaimList is a list of AddressClaims.
type AddressClaimList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressClaim `json:"items"`
}

// A ReportList is a list of Reports.
type ReportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Report `json:"items"`
}

// DeepCopy returns a copy that shares nothing with p.
func (p *AddressPool) DeepCopy() *AddressPool {
	out := *p
	p.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Addresses = slices.Clone(p.Spec.Addresses)
	if p.Spec.AutoAssign != nil {
		v := *p.Spec.AutoAssign
		out.Spec.AutoAssign = &v
	}
	return &out
}

// DeepCopy returns a copy that shares nothing with c.
func (c *AddressClaim) DeepCopy() *AddressClaim {
	out := *c
	c.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.Services = slices.Clone(c.Spec.Services)
	out.Spec.Announce = slices.Clone(c.Spec.Announce)
	return &out
}

// DeepCopy returns a copy that shares nothing with r.
func (r *Report) DeepCopy() *Report {
	out := *r
	r.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Ingresses = slices.Clone(r.Ingresses)
	out.Addresses = slices.Clone(r.Addresses)
	out.Problems = slices.Clone(r.Problems)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (p *AddressPool) DeepCopyObject() runtime.Object { return p.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (c *AddressClaim) DeepCopyObject() runtime.Object { return c.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (r *Report) DeepCopyObject() runtime.Object { return r.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *AddressPoolList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = copyItems(l.Items, (*AddressPool).DeepCopy)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *AddressClaimList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = copyItems(l.Items, (*AddressClaim).DeepCopy)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *ReportList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = copyItems(l.Items, (*Report).DeepCopy)
	return &out
}

func copyItems[T any](items []T, deepCopy func(*T) *T) []T {
	if items == nil {
		return nil
	}
	out := make([]T, len(items))
	for i := range items {
		out[i] = *deepCopy(&items[i])
	}
	return out
}
