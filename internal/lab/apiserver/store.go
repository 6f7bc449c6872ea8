package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	// syncTimeout bounds one try to write what is not written yet; syncAgain is the least time between two.
	syncTimeout = 2 * time.Second
	syncAgain   = time.Second
)

// A Store writes objects to the API, part by part, and remembers which are its own. It is for one goroutine.
type Store struct {
	client     *Client
	parts      map[string]map[string]*entry
	gone       map[string]*unstructured.Unstructured // to be deleted
	namespaces map[string]bool                       // that are there
	dirty      bool
	tried      time.Time
}

// An entry is an object that should be in the API.
type entry struct {
	object *unstructured.Unstructured
	json   string
	done   bool
	err    error // why the API refused it, or why it was not asked yet
}

// NewStore makes a Store without any objects.
func NewStore(c *Client) *Store {
	return &Store{
		client: c, parts: map[string]map[string]*entry{}, gone: map[string]*unstructured.Unstructured{}, namespaces: map[string]bool{},
	}
}

// Put makes objects all that a part has: those that it had before are deleted. What cannot be written now is written by a
// later call of Put or Again. The error has a line for each object that the API does not have as it should.
func (s *Store) Put(ctx context.Context, part string, objects []any) error {
	next := map[string]*entry{}
	var errs []error
	for _, o := range objects {
		e, err := newEntry(o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if old := s.parts[part][e.name()]; old != nil && old.json == e.json {
			e = old
		}
		next[e.name()] = e
	}
	for name, e := range s.parts[part] {
		if next[name] == nil {
			s.gone[name] = e.object
		}
	}
	s.parts[part] = next
	for name := range next {
		delete(s.gone, name)
	}
	s.sync(ctx)
	return errors.Join(append(errs, s.errors(part))...)
}

// Again tries what failed before, not too often. It says whether it tried.
func (s *Store) Again(ctx context.Context) bool {
	if !s.dirty || time.Since(s.tried) < syncAgain {
		return false
	}
	s.sync(ctx)
	return true
}

// Err says what of all parts the API does not have as it should.
func (s *Store) Err() error {
	var errs []error
	for _, part := range slices.Sorted(maps.Keys(s.parts)) {
		errs = append(errs, s.errors(part))
	}
	return errors.Join(errs...)
}

func (s *Store) errors(part string) error {
	var errs []error
	entries := s.parts[part]
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := entries[name].err; err != nil {
			errs = append(errs, fmt.Errorf("apply %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func newEntry(o any) (*entry, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("write object as JSON: %w", err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &u.Object); err != nil {
		return nil, fmt.Errorf("read object as JSON: %w", err)
	}
	if u.GetKind() == "" || u.GetName() == "" {
		return nil, fmt.Errorf("an object without kind or name: %.100s", data)
	}
	switch {
	case Clustered(u.GetKind()):
		u.SetNamespace("")
	case u.GetNamespace() == "":
		u.SetNamespace("default")
	}
	return &entry{object: u, json: string(data)}, nil
}

func (e *entry) name() string {
	return strings.Join([]string{e.object.GetAPIVersion(), e.object.GetKind(), e.object.GetNamespace(), e.object.GetName()}, " ")
}

// sync writes what is not written yet. It ends when the server cannot be reached.
func (s *Store) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	s.dirty, s.tried = false, time.Now()
	for _, part := range slices.Sorted(maps.Keys(s.parts)) {
		entries := s.parts[part]
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			if e := entries[name]; !e.done && !s.settle(e, s.apply(ctx, e.object)) {
				return
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.gone)) {
		o := s.gone[name]
		err := s.client.Delete(ctx, o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
		if err == nil {
			delete(s.gone, name)
			continue
		}
		s.dirty = true
		var status *StatusError
		if !errors.As(err, &status) {
			return
		}
	}
}

// settle notes how the writing of an entry ended, and says whether the server can be reached.
func (s *Store) settle(e *entry, err error) bool {
	e.err = err
	var status *StatusError
	reached := err == nil || errors.As(err, &status)
	// What the API refuses, it refuses until somebody changes it.
	if e.done = err == nil || reached && status.refused(); !e.done {
		s.dirty = true
	}
	return reached
}

func (s *Store) apply(ctx context.Context, o *unstructured.Unstructured) error {
	if ns := o.GetNamespace(); ns != "" && !s.namespaces[ns] {
		namespace := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns},
		}}
		if err := s.client.Apply(ctx, namespace); err != nil {
			return err
		}
		s.namespaces[ns] = true
	}
	return s.client.Apply(ctx, o)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
