package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/stamp"
)

// Files follows a folder of manifests. The zero value with Dir set is ready.
type Files struct {
	Dir   string
	files map[string]*file
}

type file struct {
	stamp stamp.Stamp
	doubt stamp.Doubt // about the state that the file is in now
	docs  [][]byte    // JSON, of the last good state
	err   error
}

// Poll reads what changed since the last call. The error says what could not be read: the last good state of such a
// file stays; of a file that never was good, what can be read is used. A file that is changed or made in place, or removed, is
// believed when it has been so for stamp.Wait: to believe half of it would end pods.
func (f *Files) Poll() (changed bool, err error) {
	return f.poll(time.Now())
}

func (f *Files) poll(now time.Time) (changed bool, err error) {
	if f.files == nil {
		f.files = map[string]*file{}
		changed = true
	}
	seen := map[string]bool{}
	walkErr := filepath.WalkDir(f.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		hidden := strings.HasPrefix(d.Name(), ".") && path != f.Dir
		if d.IsDir() && hidden {
			return fs.SkipDir
		}
		if d.IsDir() || hidden || !isManifest(path) {
			return nil
		}
		is, renamed, err := stamp.Of(path)
		if err != nil {
			return ignoreGone(err)
		}
		seen[path] = true
		changed = f.read(path, is, renamed, now) || changed
		return nil
	})
	errs := []error{walkErr}
	for path, file := range f.files {
		if !seen[path] && walkErr == nil && file.doubt.Over(stamp.Stamp{}, now, stamp.Wait) {
			delete(f.files, path)
			changed = true
		} else if file.err != nil {
			errs = append(errs, file.err)
		}
	}
	return changed, errors.Join(errs...)
}

// ignoreGone lets an editor replace files while they are read.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func isManifest(path string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path))
}

// read reads one file if it changed and can be believed, and says whether it did.
func (f *Files) read(path string, is stamp.Stamp, renamed bool, now time.Time) bool {
	old := f.files[path]
	first := old == nil
	if first {
		old = &file{}
		f.files[path] = old
	}
	if !first && old.stamp == is {
		old.doubt = stamp.Doubt{}
		return false
	}
	believed := first || old.doubt.Over(is, now, stamp.Wait)
	if !believed && (!renamed || old.stamp.Identity == is.Identity) {
		return false
	}
	docs, err := readFile(path)
	if after, _, e := stamp.Of(path); !first && (e != nil || after != is) || !believed && err == nil && lacks(docs, old.docs) {
		return false
	}
	old.stamp, old.doubt = is, stamp.Doubt{}
	if docs != nil && (err == nil || old.docs == nil) {
		old.docs = docs
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	old.err = err
	return true
}

func readFile(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	docs, err := splitDocuments(data)
	docs, errs := readable(docs)
	return docs, errors.Join(err, errs)
}

// lacks says whether an object of known is not in docs.
func lacks(docs, known [][]byte) bool {
	there := map[string]bool{}
	for _, doc := range docs {
		there[nameOf(doc)] = true
	}
	return slices.ContainsFunc(known, func(doc []byte) bool { return !there[nameOf(doc)] })
}

// nameOf is the kind, namespace and name of a document that was decoded before.
func nameOf(doc []byte) string {
	var head struct {
		Kind     string            `json:"kind"`
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	_ = yaml.Unmarshal(doc, &head)
	return head.Kind + " " + key(&head.Metadata).String()
}

// readable selects the documents that can be decoded.
func readable(docs [][]byte) ([][]byte, error) {
	out := [][]byte{}
	var errs []error
	for _, doc := range docs {
		if err := Decode(NewObjects(), [][]byte{doc}); err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, doc)
	}
	return out, errors.Join(errs...)
}

// Objects returns new Objects of all files, in the order of their paths: a later object replaces an earlier one of the
// same name.
func (f *Files) Objects() *Objects {
	paths := make([]string, 0, len(f.files))
	for path := range f.files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	o := NewObjects()
	for _, path := range paths {
		// It was decoded before, so there is no error.
		_ = Decode(o, f.files[path].docs)
	}
	return o
}

// Parse reads YAML documents into o.
func Parse(o *Objects, data []byte) error {
	docs, err := splitDocuments(data)
	return errors.Join(err, Decode(o, docs))
}

// splitDocuments turns YAML documents into JSON ones and resolves Lists. With an error it returns what could be read.
func splitDocuments(data []byte) ([][]byte, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var out [][]byte
	var errs []error
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, errors.Join(errs...)
		}
		if err != nil {
			return out, errors.Join(append(errs, err)...)
		}
		js, err := yaml.YAMLToJSON(doc)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if string(js) == "null" {
			continue
		}
		var list struct {
			Kind  string                 `json:"kind"`
			Items []runtime.RawExtension `json:"items"`
		}
		if err := yaml.Unmarshal(js, &list); err != nil {
			errs = append(errs, err)
			continue
		}
		if !strings.HasSuffix(list.Kind, "List") {
			out = append(out, js)
			continue
		}
		for _, item := range list.Items {
			out = append(out, item.Raw)
		}
	}
}

// Decode puts JSON documents into o. Kinds that the lab has no use for are passed over.
func Decode(o *Objects, docs [][]byte) error {
	for _, doc := range docs {
		var head struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal(doc, &head); err != nil {
			return err
		}
		if err := o.decode(head.APIVersion, head.Kind, doc); err != nil {
			return fmt.Errorf("%s %s: %w", head.Kind, head.Name, err)
		}
	}
	return nil
}

func (o *Objects) decode(apiVersion, kind string, doc []byte) error {
	switch apiVersion + " " + kind {
	case "v1 Service":
		return into(doc, func(s *corev1.Service) { o.Services[key(s)] = s })
	case "v1 Secret":
		return into(doc, func(s *corev1.Secret) { o.Secrets[key(s)] = s })
	case "v1 Pod":
		return into(doc, func(p *corev1.Pod) {
			o.add(&Workload{Replicas: 1, Recreate: true, Template: corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}}, kind, p)
		})
	case "apps/v1 Deployment":
		return into(doc, func(d *appsv1.Deployment) { o.add(fromDeployment(d), kind, d) })
	case "apps/v1 ReplicaSet":
		return into(doc, func(r *appsv1.ReplicaSet) {
			o.add(&Workload{Replicas: count(r.Spec.Replicas), Template: r.Spec.Template}, kind, r)
		})
	case "apps/v1 StatefulSet":
		return into(doc, func(s *appsv1.StatefulSet) {
			o.add(&Workload{Replicas: count(s.Spec.Replicas), Template: s.Spec.Template}, kind, s)
		})
	case "apps/v1 DaemonSet":
		return into(doc, func(d *appsv1.DaemonSet) { o.add(fromDaemonSet(d), kind, d) })
	case "discovery.k8s.io/v1 EndpointSlice":
		return into(doc, func(s *discoveryv1.EndpointSlice) { o.Slices[key(s)] = s })
	case "networking.k8s.io/v1 Ingress":
		return into(doc, func(i *networkingv1.Ingress) { o.Ingresses[key(i)] = i })
	case "networking.k8s.io/v1 IngressClass":
		return into(doc, func(c *networkingv1.IngressClass) { o.IngressClasses[c.Name] = c })
	case v1alpha1.APIVersion + " AddressPool":
		return into(doc, func(p *v1alpha1.AddressPool) { o.Pools[p.Name] = p })
	}
	return nil
}

func into[T any](doc []byte, put func(*T)) error {
	v := new(T)
	if err := yaml.Unmarshal(doc, v); err != nil {
		return err
	}
	put(v)
	return nil
}

func key(o metav1.Object) Key {
	ns := o.GetNamespace()
	if ns == "" {
		ns = "default"
	}
	return Key{Namespace: ns, Name: o.GetName()}
}

func (o *Objects) add(w *Workload, kind string, object metav1.Object) {
	k := key(object)
	w.Key = WorkloadKey{Kind: kind, Namespace: k.Namespace, Name: k.Name}
	o.Workloads[w.Key] = w
}

func fromDeployment(d *appsv1.Deployment) *Workload {
	w := &Workload{Replicas: count(d.Spec.Replicas), Template: d.Spec.Template}
	w.Recreate = d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	rolling := defaultRolling()
	w.MaxSurge, w.MaxUnavailable = *rolling.MaxSurge, *rolling.MaxUnavailable
	if given := d.Spec.Strategy.RollingUpdate; given != nil {
		if given.MaxSurge != nil {
			w.MaxSurge = *given.MaxSurge
		}
		if given.MaxUnavailable != nil {
			w.MaxUnavailable = *given.MaxUnavailable
		}
	}
	return w
}

func fromDaemonSet(d *appsv1.DaemonSet) *Workload {
	w := &Workload{Template: d.Spec.Template}
	if given := d.Spec.UpdateStrategy.RollingUpdate; given != nil && given.MaxSurge != nil {
		w.MaxSurge = *given.MaxSurge
	}
	return w
}

func count(replicas *int32) int {
	if replicas == nil {
		return 1
	}
	return int(*replicas)
}
