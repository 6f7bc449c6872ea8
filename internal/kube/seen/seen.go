// Package seen remembers since when objects are there that come from files and so have no creation time.
//
// Of two Ingresses that want one host, of two pools with one range, the older one has it. Without times a newcomer would
// take it over by its name alone. The one controller notes each object when it sees it first, in a file of the state
// folder, and everybody reads that: all gateways and nodes have the same order, also after a restart.
//
//	manifests/ ──> controller ── Next ──> state/seen.yaml
//	    │                                     │
//	    └──────────> kube.Files <─────────────┘   creationTimestamp of each object that has none of its own
//
// An object that is not noted yet is newer than all that are (model.CompareAge puts those without a time last). One that
// is deleted is forgotten: when it comes again it is new, as with an API server. If the file is lost, who reads it keeps what
// was in it, and a controller that starts goes by who holds something (Recover).
package seen

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/model"
)

// File is the file of the state folder. The controller writes it, nobody else. It is a ConfigMap.
const File = "seen.yaml"

// Times says since when objects are there, by Key.
type Times map[string]time.Time

// Key names an object as a key of a ConfigMap. A namespace has no dots in it.
func Key(kind string, key model.Key) string {
	return kind + "." + key.Namespace + "." + key.Name
}

// Next returns what is to be remembered after s was seen at the time now. It does not change t. Objects that came together
// get one time, and no later one ever an earlier time, whatever the clock does.
//
// last is the Snapshot of the Next that returned t, nil when t is of another process. While a file cannot be read, what
// last did not have is not forgotten: it may be in that file, which never was whole to this process. What last had is
// deleted: a file that becomes unreadable keeps its objects in the Snapshot. So a file that stays broken keeps few times.
func (t Times) Next(last, s *model.Snapshot, now time.Time) Times {
	next := Times{}
	if slices.ContainsFunc(s.Problems, func(p model.Problem) bool { return p.Object.Kind == "File" }) {
		maps.Copy(next, t)
		each(last, func(key string, _ time.Time) { delete(next, key) })
	}
	now = t.after(now)
	each(s, func(key string, created time.Time) {
		if at, ok := t[key]; ok {
			next[key] = at
		} else if created.IsZero() {
			next[key] = now
		}
	})
	return next
}

// each calls note with the Key and the creation time of each object of s, which may be nil.
func each(s *model.Snapshot, note func(key string, created time.Time)) {
	if s == nil {
		return
	}
	for key, o := range s.Ingresses.All() {
		note(Key("Ingress", key), o.CreationTimestamp.Time)
	}
	for key, o := range s.Services.All() {
		note(Key("Service", key), o.CreationTimestamp.Time)
	}
	for name, o := range s.Pools {
		note(Key("AddressPool", model.Key{Name: name}), o.CreationTimestamp.Time)
	}
	for name, o := range s.Nodes {
		note(Key("Node", model.Key{Name: name}), o.Created)
	}
}

// Recover returns t with what holds something of s and has no time, as if it came now, but after all of t: what comes to it by
// Next is younger. It is for times that were lost; s is what was written of addresses and claims of them. It does not
// change t.
func (t Times) Recover(s *model.Snapshot, now time.Time) Times {
	next := maps.Clone(t)
	if next == nil {
		next = Times{}
	}
	now = t.after(now)
	note := func(kind string, key model.Key, holds bool) {
		if k := Key(kind, key); holds && t[k].IsZero() {
			next[k] = now
		}
	}
	for key, o := range s.Ingresses.All() {
		note("Ingress", key, len(o.Status.LoadBalancer.Ingress) > 0)
	}
	for key, o := range s.Services.All() {
		note("Service", key, len(o.Status.LoadBalancer.Ingress) > 0)
	}
	for name, o := range s.Pools {
		note("AddressPool", model.Key{Name: name}, o.Status.Claimed > 0)
	}
	for _, o := range s.Claims {
		note("AddressPool", model.Key{Name: o.Spec.Pool}, o.Spec.Pool != "")
		for _, service := range o.Spec.Services {
			note("Service", model.Key{Namespace: service.Namespace, Name: service.Name}, true)
		}
	}
	return next
}

// after is now, or later if that is not after all of t.
func (t Times) after(now time.Time) time.Time {
	now = now.UTC().Truncate(time.Microsecond)
	for _, at := range t {
		if !at.Before(now) {
			now = at.Add(time.Microsecond)
		}
	}
	return now
}

// ConfigMap is the object that File holds.
func (t Times) ConfigMap() *corev1.ConfigMap {
	o := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "seen"}}
	o.Data = make(map[string]string, len(t))
	for key, at := range t {
		o.Data[key] = at.UTC().Format(time.RFC3339Nano)
	}
	return o
}

// Parse reads the content of a File. With an error it returns what could be read.
func Parse(data []byte) (Times, error) {
	var o corev1.ConfigMap
	if err := yaml.Unmarshal(data, &o); err != nil {
		return Times{}, fmt.Errorf("read when objects came: %w", err)
	}
	t := make(Times, len(o.Data))
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(o.Data)) {
		at, err := time.Parse(time.RFC3339Nano, o.Data[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("read when %s came: %w", key, err))
			continue
		}
		t[key] = at
	}
	return t, errors.Join(errs...)
}

// Read reads a File. With an error, fs.ErrNotExist among them, it returns what could be read.
func Read(path string) (Times, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Times{}, fmt.Errorf("read when objects came: %w", err)
	}
	return Parse(data)
}
