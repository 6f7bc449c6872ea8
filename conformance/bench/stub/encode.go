package stub

import (
	"bytes"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"

	"hythe.dev/hythe/api/v1alpha1"
)

// An encoding is a media type.
type encoding struct {
	name, stream string // media types of a body and of a watch
	info         runtime.SerializerInfo
}

// encodings returns protobuf and JSON.
func encodings() (protobuf, json encoding, err error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return encoding{}, encoding{}, fmt.Errorf("make scheme: %w", err)
		}
	}
	types := serializer.NewCodecFactory(scheme).SupportedMediaTypes()
	find := func(name, stream string) encoding {
		info, _ := runtime.SerializerInfoForMediaType(types, name)
		return encoding{name, stream, info}
	}
	return find(runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+";stream=watch"),
		find(runtime.ContentTypeJSON, runtime.ContentTypeJSON), nil
}

// event returns the bytes of one event of a watch.
func (e encoding) event(kind watch.EventType, object runtime.Object) ([]byte, error) {
	raw, err := e.object(object)
	if err != nil {
		return nil, err
	}
	var out, frame bytes.Buffer
	if err := e.info.StreamSerializer.Encode(&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}, &frame); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	if _, err := e.info.StreamSerializer.Framer.NewFrameWriter(&out).Write(frame.Bytes()); err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return out.Bytes(), nil
}

func (e encoding) object(object runtime.Object) ([]byte, error) {
	var raw bytes.Buffer
	if err := e.info.Serializer.Encode(object, &raw); err != nil {
		return nil, fmt.Errorf("encode %T: %w", object, err)
	}
	return raw.Bytes(), nil
}

// A Kind is what is served, and where.
type Kind struct {
	Path string // "/api/v1/services"
	GVK  schema.GroupVersionKind
	// New makes an empty object, for the bookmark that ends a list by watch; List makes a list of objects.
	New  func() Object
	List func(meta metav1.ListMeta, objects []Object) runtime.Object
}

// An Object is one of the API's.
type Object interface {
	metav1.Object
	runtime.Object
}

// listOf makes Kind.List for a type of list.
func listOf[T any, P interface {
	*T
	Object
}](make func(metav1.ListMeta, []T) runtime.Object) func(metav1.ListMeta, []Object) runtime.Object {
	return func(meta metav1.ListMeta, objects []Object) runtime.Object {
		items := []T{}
		for _, o := range objects {
			items = append(items, *o.(P))
		}
		return make(meta, items)
	}
}

// Kinds are all that agents of nodes read.
func Kinds() []Kind {
	claim, report := v1alpha1.GroupVersion.WithKind("AddressClaim"), v1alpha1.GroupVersion.WithKind("Report")
	return []Kind{
		{"/api/v1/services", corev1.SchemeGroupVersion.WithKind("Service"), func() Object { return &corev1.Service{} },
			listOf(func(m metav1.ListMeta, items []corev1.Service) runtime.Object {
				return &corev1.ServiceList{ListMeta: m, Items: items}
			})},
		{"/api/v1/nodes", corev1.SchemeGroupVersion.WithKind("Node"), func() Object { return &corev1.Node{} },
			listOf(func(m metav1.ListMeta, items []corev1.Node) runtime.Object {
				return &corev1.NodeList{ListMeta: m, Items: items}
			})},
		{"/apis/discovery.k8s.io/v1/endpointslices", discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), func() Object { return &discoveryv1.EndpointSlice{} },
			listOf(func(m metav1.ListMeta, items []discoveryv1.EndpointSlice) runtime.Object {
				return &discoveryv1.EndpointSliceList{ListMeta: m, Items: items}
			})},
		{"/apis/networking.k8s.io/v1/servicecidrs", networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"), func() Object { return &networkingv1.ServiceCIDR{} },
			listOf(func(m metav1.ListMeta, items []networkingv1.ServiceCIDR) runtime.Object {
				return &networkingv1.ServiceCIDRList{ListMeta: m, Items: items}
			})},
		{"/apis/hythe.dev/v1alpha1/addressclaims", claim, func() Object { return &v1alpha1.AddressClaim{} },
			listOf(func(m metav1.ListMeta, items []v1alpha1.AddressClaim) runtime.Object {
				return &v1alpha1.AddressClaimList{ListMeta: m, Items: items}
			})},
		{"/apis/hythe.dev/v1alpha1/reports", report, func() Object { return &v1alpha1.Report{} },
			listOf(func(m metav1.ListMeta, items []v1alpha1.Report) runtime.Object {
				return &v1alpha1.ReportList{ListMeta: m, Items: items}
			})},
	}
}
