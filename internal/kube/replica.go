package kube

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hythe.dev/hythe/internal/model"
)

// A replica holds the objects of one kind as the API server has them. client-go's Reflector fills it: it lists, goes
// on with a watch, and lists again when the watch cannot be continued.
type replica struct {
	kind     string
	resource resource
	selector fields.Selector
	status   bool
	changed  func() // called after each change, must not block

	mu      sync.Mutex
	objects map[model.Key]metav1.Object
	pending map[model.Key]bool // what changed since the last drain
	synced  bool               // a first list is complete
	lists   int                // complete lists so far
	expired int                // watches that could not be continued (410)
	asked   time.Time          // since when a request waits for its answer; zero: none does
	err     error              // why the last request failed
}

// request makes the path of a list or watch.
func (r *replica) request(client rest.Interface, options metav1.ListOptions) *rest.Request {
	options.FieldSelector = r.selector.String()
	return client.Get().Resource(r.resource.name).SpecificallyVersionedParams(&options, metav1.ParameterCodec, metav1.SchemeGroupVersion)
}

// reflect keeps the replica true until ctx is done.
func (r *replica) reflect(ctx context.Context, client rest.Interface) {
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := r.resource.list.DeepCopyObject()
			r.ask()
			err := r.request(client, options).Do(ctx).Into(list)
			r.answer(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch = true
			r.ask()
			w, err := r.request(client, options).Watch(ctx)
			r.answer(err)
			if err != nil {
				return nil, err
			}
			return watch.Filter(w, r.notice), nil
		},
	}
	reflector := cache.NewReflectorWithOptions(source, r.resource.object, r, cache.ReflectorOptions{
		Name: r.resource.name,
		// An API server that returns is noticed within some seconds, and not by all nodes at the same moment.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 6, Cap: 3 * time.Second},
	})
	reflector.RunWithContext(ctx)
}

// notice counts watches that the server ends because its history does not reach back far enough.
func (r *replica) notice(event watch.Event) (watch.Event, bool) {
	if event.Type == watch.Error {
		if isExpired(apierrors.FromObject(event.Object)) {
			r.mu.Lock()
			r.expired++
			r.mu.Unlock()
		}
	}
	return event, true
}

func isExpired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

func (r *replica) ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() {
		r.asked = time.Now()
	}
}

// answer notes how a request ended. An error that the server sent is an answer too, but no state.
func (r *replica) answer(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	if err == nil {
		r.asked = time.Time{}
	}
	if isExpired(err) {
		r.expired++
	}
}

// silent returns since when the API server gives no state, the zero time if it does, and why.
func (r *replica) silent() (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked, r.err
}

// drain returns what changed since the last call.
func (r *replica) drain() []change {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]change, 0, len(r.pending))
	for key := range r.pending {
		out = append(out, change{kind: r.kind, key: key, object: r.objects[key]})
	}
	clear(r.pending)
	return out
}

// Transformer implements cache.TransformingStore, so that a first list is trimmed while it arrives.
func (r *replica) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if o, ok := object.(metav1.Object); ok {
			trim(o, r.status)
		}
		return object, nil
	}
}

// Add implements cache.ReflectorStore.
func (r *replica) Add(object any) error { return r.Update(object) }

// Update implements cache.ReflectorStore.
func (r *replica) Update(object any) error {
	o, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("replica %s: %T is no object", r.resource.name, object)
	}
	trim(o, r.status)
	r.mu.Lock()
	changed := r.put(o)
	r.mu.Unlock()
	if changed {
		r.changed()
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (r *replica) Delete(object any) error {
	o, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("replica %s: %T is no object", r.resource.name, object)
	}
	r.mu.Lock()
	changed := r.remove(keyOf(o))
	r.mu.Unlock()
	if changed {
		r.changed()
	}
	return nil
}

// Replace implements cache.ReflectorStore: it notes only what differs, so that a new list of an unchanged world
// changes nothing.
func (r *replica) Replace(list []any, _ string) error {
	present := make(map[model.Key]bool, len(list))
	r.mu.Lock()
	for _, object := range list {
		if o, ok := object.(metav1.Object); ok {
			trim(o, r.status)
			r.put(o)
			present[keyOf(o)] = true
		}
	}
	for key := range r.objects {
		if !present[key] {
			r.remove(key)
		}
	}
	r.synced = true
	r.lists++
	r.mu.Unlock()
	r.changed()
	return nil
}

// Resync implements cache.ReflectorStore; there is nothing to do.
func (r *replica) Resync() error { return nil }

// put is called with mu held and reports a change.
func (r *replica) put(o metav1.Object) bool {
	key := keyOf(o)
	if !used(o) {
		return r.remove(key)
	}
	if old := r.objects[key]; old != nil && reflect.DeepEqual(old, o) {
		return false
	}
	r.objects[key] = o
	r.pending[key] = true
	return true
}

func (r *replica) remove(key model.Key) bool {
	if r.objects[key] == nil {
		return false
	}
	delete(r.objects, key)
	r.pending[key] = true
	return true
}

// String is for logs.
func (r *replica) String() string {
	return strings.TrimSuffix(r.resource.name+" "+r.selector.String(), " ")
}
