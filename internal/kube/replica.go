package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/decode"
	"hythe.dev/hythe/internal/model"
)

// A replica holds the objects of one kind as the API server has them. client-go's Reflector fills it: it lists, goes
// on with a watch, and lists again when the watch cannot be continued.
type replica struct {
	kind     string
	resource client.Resource
	selector fields.Selector
	labels   string // a label selector
	status   bool
	bare     bool   // see APIOptions
	keeps    bool   // objects that are deleted, for a while: see deletions
	changed  func() // called after each change, must not block

	mu        sync.Mutex
	objects   map[model.Key]metav1.Object
	pending   map[model.Key]bool          // what changed since the last drain
	invalid   map[model.Key]model.Problem // objects that cannot be read
	held      map[model.Key]bool          // objects that the last list lacks, see hold
	heldAt    time.Time                   // zero: nothing is held
	heldText  string
	deletions deletions // of Hythe's own kinds, that are not believed yet
	lost      bool      // the API server did not serve this kind of Hythe's own, and has given no list since
	// confirmAt is when a second reading is asked for, confirmWait how long it is put off if that fails.
	confirmAt   time.Time
	confirmWait time.Duration
	random      *rand.Rand

	synced  bool      // a first list is complete
	lists   int       // complete lists so far
	expired int       // watches that could not be continued (410)
	asked   time.Time // since when a request waits for its answer; zero: none does
	back    time.Time // when one was answered that had waited for silentLate or longer
	failing time.Time // since when no watch can be opened; zero: the last one could
	err     error     // why the last request failed
	unknown bool      // the API server does not serve this kind, and that is borne
}

func newReplica(kind string, resource client.Resource, selector fields.Selector, status bool, seed uint64, changed func()) *replica {
	return &replica{
		kind: kind, resource: resource, selector: selector, status: status, changed: changed,
		objects: map[model.Key]metav1.Object{}, pending: map[model.Key]bool{}, invalid: map[model.Key]model.Problem{}, held: map[model.Key]bool{},
		deletions: deletions{keys: map[model.Key]bool{}},
		random:    rand.New(rand.NewPCG(seed, uint64(crc32.ChecksumIEEE([]byte(kind))))), //nolint:gosec // spreads load
	}
}

// A lister reads all objects of a kind, a watcher what changes.
type (
	lister  = func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watcher = func(context.Context, metav1.ListOptions) (watch.Interface, error)
)

// source returns how the kind is read. Hythe's own kinds come untyped: one object that does not fit its type must not
// cost the list of all.
func (r *replica) source(c *client.Clients) (lister, watcher, runtime.Object) {
	if r.custom() {
		resource := c.Custom.Resource(r.resource.GV.WithResource(r.resource.Name))
		expected := &unstructured.Unstructured{}
		expected.SetGroupVersionKind(r.resource.GV.WithKind(r.kind))
		list := func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			out, err := resource.List(ctx, options)
			if err != nil {
				return nil, err // not a nil list in an interface
			}
			return out, nil
		}
		return list, resource.Watch, expected
	}
	from := c.ByGV[r.resource.GV]
	list := func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := r.resource.List.DeepCopyObject()
		err := r.request(from, options).Do(ctx).Into(list)
		return list, err
	}
	watch := func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		return r.request(from, options).Watch(ctx)
	}
	return list, watch, r.resource.Object
}

// custom says whether objects come untyped.
func (r *replica) custom() bool { return r.resource.GV == v1alpha1.GroupVersion }

// request makes the path of a list or watch.
func (r *replica) request(from rest.Interface, options metav1.ListOptions) *rest.Request {
	return from.Get().Resource(r.resource.Name).SpecificallyVersionedParams(&options, metav1.ParameterCodec, metav1.SchemeGroupVersion)
}

// reflect keeps the replica true until ctx is done.
func (r *replica) reflect(ctx context.Context, c *client.Clients) {
	list, open, expected := r.source(c)
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector, options.LabelSelector = r.selector.String(), r.labels
			r.rest(ctx)
			r.ask()
			out, err := list(ctx, options)
			r.answer(err)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch, options.FieldSelector, options.LabelSelector = true, r.selector.String(), r.labels
			if err := r.mayContinue(ctx, list, options); err != nil {
				return nil, err
			}
			r.ask()
			w, err := open(ctx, options)
			r.opened(err)
			if err != nil {
				return nil, err
			}
			return r.observed(w), nil
		},
	}
	reflector := cache.NewReflectorWithOptions(source, expected, r, cache.ReflectorOptions{
		Name: r.resource.Name,
		// An API server that returns is noticed within some seconds, and not by all nodes at the same moment.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 6, Cap: 3 * time.Second},
	})
	reflector.RunWithContext(ctx)
}

// observed passes a watch on and counts it when the server ends it because its history does not reach back far enough.
// watch.Filter would leave a goroutine behind for each watch that ends by an error.
func (r *replica) observed(w watch.Interface) watch.Interface {
	events := make(chan watch.Event)
	out := watch.NewProxyWatcher(events)
	go func() {
		defer close(events)
		defer w.Stop()
		for {
			var event watch.Event
			var more bool
			select {
			case <-out.StopChan():
				return
			case event, more = <-w.ResultChan():
			}
			if !more {
				return
			}
			if event.Type == watch.Error && isExpired(apierrors.FromObject(event.Object)) {
				r.mu.Lock()
				r.expired++
				r.mu.Unlock()
			}
			select {
			case events <- event:
			case <-out.StopChan():
				return
			}
		}
	}()
	return out
}

// mayContinue says whether a watch may go on from a version, or an error (410) that lets the reflector list anew. An etcd
// that was restored counts from an old revision again: a watch from a later one opens there and tells nothing until
// the revisions have caught up, and after that it has missed what was between.
func (r *replica) mayContinue(ctx context.Context, list lister, options metav1.ListOptions) error {
	if options.SendInitialEvents != nil || options.ResourceVersion == "" || options.ResourceVersion == "0" {
		return nil // a complete list
	}
	if r.awayFor() > relistAfter {
		return r.expire("the API server was away for long")
	}
	r.ask()
	_, err := list(ctx, metav1.ListOptions{
		FieldSelector: options.FieldSelector, LabelSelector: options.LabelSelector, Limit: 1, ResourceVersion: options.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	r.answer(err)
	if apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		return r.expire("the API server is older than resourceVersion " + options.ResourceVersion)
	}
	return err
}

// awayFor is how long a request has been waiting for its answer.
func (r *replica) awayFor() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() {
		return 0
	}
	return time.Since(r.asked)
}

func (r *replica) expire(why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expired++
	return apierrors.NewResourceExpired(why)
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
	r.answered(err, false)
}

// answered notes the answer to a list, or to a watch. It is called with mu held.
func (r *replica) answered(err error, watch bool) {
	if err == nil && !watch && r.unknown && r.resource.Optional {
		r.asked = time.Time{} // who may list it may not be allowed to watch it
		return
	}
	if err != nil || r.failing.IsZero() {
		r.err = err
	}
	r.lost = r.lost || r.custom() && apierrors.IsNotFound(err)
	if r.bear(err) || err == nil {
		if !r.asked.IsZero() && time.Since(r.asked) >= silentLate {
			r.back = time.Now()
		}
		r.asked = time.Time{}
	}
	if isExpired(err) {
		r.expired++
	}
}

// opened notes whether a watch could be opened: lists alone, each after a pause, are no state to rely on.
func (r *replica) opened(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.failing = time.Time{}
	} else if r.failing.IsZero() {
		r.failing = r.asked
	}
	r.answered(err, true)
	if r.unknown {
		r.failing = time.Time{}
	}
}

// unservedWait is how often a kind that the API server may not have is asked for while it has none.
const unservedWait = time.Minute

// rest waits before the next question for a kind that the API server may not have: all nodes ask, and mostly for ever.
func (r *replica) rest(ctx context.Context) {
	r.mu.Lock()
	wait := time.Duration(0)
	if r.unknown && r.resource.Optional {
		wait = unservedWait + r.jitter(unservedWait)
	}
	r.mu.Unlock()
	if wait == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

// bear takes a kind that the API server does not serve for a complete one, of the objects that were there: none at a start, but
// for those that API.remember finds.
// (Who deletes a definition deletes its objects first: see deletions.) An API server that has only just started answers 503
// until it knows all its kinds.
// A kind that is not of every version of Kubernetes may be forbidden too, by the role of a version of Hythe before it: it is no
// reason to leave a node without its network.
// It is called with mu held.
func (r *replica) bear(err error) bool {
	was := r.unknown
	r.unknown = r.bare && apierrors.IsNotFound(err) || r.resource.Optional && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err))
	if r.unknown {
		r.synced = true
	}
	if r.unknown != was {
		r.changed()
	}
	return r.unknown
}

// problems are the objects that cannot be read, and what is held.
func (r *replica) problems(server model.ObjectRef) []model.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Collect(maps.Values(r.invalid))
	switch {
	case r.unknown && apierrors.IsForbidden(r.err):
		out = append(out, model.Problemf(server, ReasonForbidden, "no %s: give the role of this process the verbs list and watch on %s: %v",
			r.kind, r.resource.GV.WithResource(r.resource.Name).GroupResource(), r.err))
	case r.unknown && r.resource.Optional: // there are none
	case r.unknown:
		out = append(out, model.Problemf(server, ReasonKindNotServed, "the API server knows no %s.%s: the %d that were there stay in use, until the CustomResourceDefinitions of Hythe's chart are installed",
			r.resource.Name, r.resource.GV.Group, len(r.objects)))
	}
	if r.heldText != "" {
		out = append(out, model.Problemf(server, "MassDeleteHeld", "%s", r.heldText))
	}
	return out
}

// untold says whether the API server has not yet given a list of a kind that it does not serve. It is called with mu held.
func (r *replica) untold() bool { return r.unknown && r.lists == 0 }

// refused says whether there is nothing of a kind because the API server has not yet given it.
func (r *replica) refused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.untold() && len(r.objects) == 0
}

// seed gives the replica the objects of the cache before its first list, so that a list that lacks most of them is
// doubted.
func (r *replica) seed(objects []metav1.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.synced && !r.untold() {
		return
	}
	for _, o := range objects {
		if kindOf(o) == r.kind {
			r.put(o)
		}
	}
}

// silent returns since when the API server gives no state, the zero time if it does, and why.
func (r *replica) silent() (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() || !r.failing.IsZero() && r.failing.Before(r.asked) {
		return r.failing, r.err
	}
	return r.asked, r.err
}

// late says whether the API server gave no state for a while until just now: what it tells next may be about long ago.
func (r *replica) late(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.asked.IsZero() && now.Sub(r.asked) >= silentLate || !r.back.IsZero() && now.Sub(r.back) < silentLate
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
		o, ok := object.(metav1.Object)
		if !ok || r.custom() {
			return object, nil
		}
		_ = contain.Do(func() { // put tells of it
			trim(o, r.status)
			object = compact(o)
		})
		return object, nil
	}
}

// Add implements cache.ReflectorStore.
func (r *replica) Add(object any) error { return r.Update(object) }

// Update implements cache.ReflectorStore.
func (r *replica) Update(object any) error {
	o, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("replica %s: %T is no object", r.resource.Name, object)
	}
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
		return fmt.Errorf("replica %s: %T is no object", r.resource.Name, object)
	}
	r.mu.Lock()
	key := keyOf(o)
	// A pool that goes takes no address from anybody, but must give none either.
	if r.keeps && r.objects[key] != nil {
		r.deletions.add(key, time.Now())
		r.mu.Unlock()
		return nil
	}
	changed := r.remove(key)
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
			r.put(o)
			present[keyOf(o)] = true
		}
	}
	var missing []model.Key
	for key := range r.objects {
		if !present[key] && (r.lost || !r.deletions.keys[key]) { // what a watch told is decided apart
			missing = append(missing, key)
		}
	}
	for key := range r.invalid {
		if !present[key] {
			delete(r.invalid, key)
		}
	}
	if before := len(r.objects); r.doubts(len(missing), before) {
		r.hold(missing, before)
	} else {
		for _, key := range missing {
			r.remove(key)
		}
	}
	r.synced, r.lost = true, false
	r.lists++
	r.mu.Unlock()
	r.changed()
	return nil
}

// Resync implements cache.ReflectorStore; there is nothing to do.
func (r *replica) Resync() error { return nil }

// put is called with mu held and reports a change.
func (r *replica) put(fresh metav1.Object) bool {
	key := keyOf(fresh)
	r.release(key)
	before, was := r.invalid[key]
	delete(r.invalid, key)
	o, err := r.read(fresh)
	if err != nil {
		r.invalid[key] = model.Problemf(model.Ref(r.kind, key), "Unreadable", "%v; correct it, until then what it said before counts, if it said anything", err)
		return !was || before != r.invalid[key]
	}
	if !used(o) {
		return r.remove(key) || was
	}
	if old := r.objects[key]; old != nil && alike(old, o) {
		return was
	}
	r.objects[key] = o
	r.pending[key] = true
	return true
}

// read makes the trimmed, typed object of what the API server sent. Whatever it is, it costs no more than itself.
func (r *replica) read(fresh metav1.Object) (o metav1.Object, err error) {
	err = contain.Call(func() (err error) {
		o, err = r.typed(fresh)
		return err
	})
	return o, err
}

func (r *replica) typed(fresh metav1.Object) (metav1.Object, error) {
	o := fresh
	if s, ok := fresh.(*endpointSlice); ok { // by Transformer, or from the cache
		return s, nil
	}
	if u, ok := fresh.(*unstructured.Unstructured); ok {
		data, err := u.MarshalJSON() // numbers that are too large are errors, which a conversion by reflection would cut
		if err != nil {
			return nil, err
		}
		typed := r.resource.Object.DeepCopyObject()
		if err := json.Unmarshal(data, typed); err != nil {
			return nil, decode.Tidy(err)
		}
		o = typed.(metav1.Object)
	}
	trim(o, r.status)
	return compact(o), nil
}

// alike says whether two objects of a kind are the same.
func alike(a, b metav1.Object) bool {
	if s, ok := a.(*endpointSlice); ok {
		return s.equal(b.(*endpointSlice))
	}
	return reflect.DeepEqual(a, b)
}

func (r *replica) remove(key model.Key) bool {
	r.release(key)
	_, was := r.invalid[key]
	delete(r.invalid, key)
	if r.objects[key] == nil {
		return was
	}
	delete(r.objects, key)
	r.pending[key] = true
	return true
}

// String is for logs.
func (r *replica) String() string {
	return strings.TrimSuffix(r.resource.Name+" "+r.selector.String(), " ")
}
