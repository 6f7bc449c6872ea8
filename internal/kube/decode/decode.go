// Package decode reads manifests: YAML or JSON documents of the kinds that Hythe uses, each alone, with the defaults that an
// API server would fill in.
package decode

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// maxDocument bounds one YAML document; an API server takes objects of at most 1.5 MiB (etcd's request limit).
const maxDocument = 4 << 20

// Documents reads all objects that Hythe knows from a stream of YAML or JSON documents, Lists included. Kinds that
// it does not use are passed over. A document that cannot be read is a Problem of the file called name.
func Documents(name string, data []byte) ([]metav1.Object, []model.Problem) {
	var objects []metav1.Object
	var problems []model.Problem
	bad := func(n int, err error) {
		problems = append(problems, model.Problemf(model.ObjectRef{Kind: "File", Name: name}, "Unreadable",
			"document %d: %v; correct it, until then nothing new is taken from it", n, err))
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, problems
		}
		if err != nil {
			bad(n, err)
			return objects, problems
		}
		if len(document) > maxDocument {
			bad(n, fmt.Errorf("it has %d bytes, the most is %d", len(document), maxDocument))
			continue
		}
		found, err := decodeDocument(document, metav1.TypeMeta{})
		if err != nil {
			bad(n, err)
		}
		objects = append(objects, found...)
	}
}

// decodeDocument reads one object, or the items of a List. It returns what it could read also with an error. What says
// of itself neither version nor kind is of the kind item: the API server leaves both out in typed lists.
func decodeDocument(document []byte, item metav1.TypeMeta) ([]metav1.Object, error) {
	var meta struct {
		metav1.TypeMeta `json:",inline"`
		Items           []yamlValue `json:"items"`
	}
	if err := yaml.Unmarshal(document, &meta); err != nil {
		return nil, Tidy(err)
	}
	if meta.Kind == "" && meta.APIVersion == "" {
		meta.TypeMeta = item
	}
	if meta.Kind == "" {
		if empty(document) {
			return nil, nil
		}
		return nil, errors.New("it has no kind")
	}
	if strings.HasSuffix(meta.Kind, "List") && len(meta.Items) > 0 {
		var objects []metav1.Object
		var errs []error
		of := metav1.TypeMeta{APIVersion: meta.APIVersion, Kind: strings.TrimSuffix(meta.Kind, "List")}
		for i, value := range meta.Items {
			found, err := decodeDocument(value, of)
			if err != nil {
				errs = append(errs, fmt.Errorf("item %d: %w", i+1, err))
			}
			objects = append(objects, found...)
		}
		return objects, errors.Join(errs...)
	}
	object, err := New(meta.APIVersion, meta.Kind)
	if object == nil || err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(document, object); err != nil {
		return nil, fmt.Errorf("%s: %w", meta.Kind, Tidy(err))
	}
	if object.GetName() == "" {
		return nil, fmt.Errorf("%s without metadata.name", meta.Kind)
	}
	complete(object)
	return []metav1.Object{object}, nil
}

// empty reports whether a document has nothing but comments.
func empty(document []byte) bool {
	var value any
	return yaml.Unmarshal(document, &value) == nil && value == nil
}

// A yamlValue keeps the bytes of a value, which are JSON by the time that it is decoded.
type yamlValue []byte

// UnmarshalJSON keeps a copy of data.
func (v *yamlValue) UnmarshalJSON(data []byte) error {
	*v = append((*v)[:0], data...)
	return nil
}

// New makes an empty object of a kind that Hythe uses, nil for any other, and an error for versions of a
// used kind that Kubernetes no longer serves.
func New(apiVersion, kind string) (metav1.Object, error) {
	if kind == "Ingress" && apiVersion != networkingv1.SchemeGroupVersion.String() && builtinIngress(apiVersion) {
		return nil, fmt.Errorf("Ingress of apiVersion %s, which Kubernetes 1.22 ended: write networking.k8s.io/v1", apiVersion)
	}
	switch apiVersion + " " + kind {
	case "networking.k8s.io/v1 Ingress":
		return &networkingv1.Ingress{}, nil
	case "networking.k8s.io/v1 IngressClass":
		return &networkingv1.IngressClass{}, nil
	case "networking.k8s.io/v1 ServiceCIDR":
		return &networkingv1.ServiceCIDR{}, nil
	case "v1 Service":
		return &corev1.Service{}, nil
	case "v1 Secret":
		return &corev1.Secret{}, nil
	case "v1 ConfigMap":
		return &corev1.ConfigMap{}, nil
	case "v1 Node":
		return &corev1.Node{}, nil
	case "v1 Endpoints":
		return &corev1.Endpoints{}, nil //nolint:staticcheck // people still write them beside Services without a selector
	case "discovery.k8s.io/v1 EndpointSlice":
		return &discoveryv1.EndpointSlice{}, nil
	case v1alpha1.APIVersion + " AddressPool":
		return &v1alpha1.AddressPool{}, nil
	case v1alpha1.APIVersion + " AddressClaim":
		return &v1alpha1.AddressClaim{}, nil
	case v1alpha1.APIVersion + " GatewayConfig":
		return &v1alpha1.GatewayConfig{}, nil
	case v1alpha1.APIVersion + " Report":
		return &v1alpha1.Report{}, nil
	}
	return nil, nil
}

func builtinIngress(apiVersion string) bool {
	return strings.HasPrefix(apiVersion, "extensions/") || strings.HasPrefix(apiVersion, "networking.k8s.io/")
}

// complete fills in what an API server would have.
func complete(object metav1.Object) {
	switch o := object.(type) {
	case *corev1.Node, *networkingv1.IngressClass, *networkingv1.ServiceCIDR, *v1alpha1.AddressPool, *v1alpha1.AddressClaim, *v1alpha1.Report, *v1alpha1.GatewayConfig:
		object.SetNamespace("")
		return
	case *corev1.Secret:
		completeSecret(o)
	case *corev1.Service:
		completeService(o)
	}
	if object.GetNamespace() == "" {
		object.SetNamespace(metav1.NamespaceDefault)
	}
}

func completeSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	for k, v := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

func completeService(s *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range s.Spec.Ports {
		if s.Spec.Ports[i].Protocol == "" {
			s.Spec.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
}

// Tidy makes the YAML library's errors one line, without the bytes that it choked on: they may be a Secret's.
func Tidy(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = strings.ReplaceAll(text, "error unmarshaling JSON: while decoding JSON: ", "")
	text = strings.ReplaceAll(text, "error converting YAML to JSON: ", "")
	if strings.Contains(text, "base64") {
		return errors.New("a value under data is not base64: encode it, or put it under stringData")
	}
	return errors.New(text)
}
