package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// A fakeServer is an API server in memory, for faults that take long or are hard to make with a real one.
type fakeServer struct {
	mu    sync.Mutex
	lists map[string][]any // by last element of the path
	exact map[string][]any // for reads without a resourceVersion, if set
	away  bool
	// unserved is a resource that the server does not know.
	unserved string
	// forbidden is one that the server does not give.
	forbidden string
	// unwatched is one that it lists only.
	unwatched string
	// terminating is one of which objects can be created no more.
	terminating string
	watches     map[*io.PipeWriter]string
	listed      map[string]int
	questions   map[string]int // by resource
}

func newFakeServer() *fakeServer {
	return &fakeServer{lists: map[string][]any{}, exact: map[string][]any{}, watches: map[*io.PipeWriter]string{}, listed: map[string]int{}, questions: map[string]int{}}
}

// RoundTrip implements http.RoundTripper.
func (f *fakeServer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	f.questions[resource]++
	query := r.URL.Query()
	answer := func(code int, body io.ReadCloser) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Request: r}, nil
	}
	if resource == v1alpha1.GroupVersion.Version { // discovery
		list := metav1.APIResourceList{GroupVersion: v1alpha1.GroupVersion.String()}
		for _, k := range AllKinds() {
			if r, _ := client.ResourceOf(k); r.GV == v1alpha1.GroupVersion && r.Name != f.unserved {
				verbs := metav1.Verbs{"list", "watch", "create"}
				if r.Name == f.terminating {
					verbs = verbs[:2]
				}
				list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.Name, Verbs: verbs})
			}
		}
		return answer(http.StatusOK, body(list))
	}
	if resource == f.unserved {
		return answer(http.StatusNotFound, body(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound}))
	}
	if resource == f.forbidden || resource == f.unwatched && query.Get("watch") != "" {
		return answer(http.StatusForbidden, body(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden}))
	}
	if query.Get("sendInitialEvents") != "" {
		return answer(http.StatusUnprocessableEntity, body(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity}))
	}
	if query.Get("watch") != "" {
		read, write := io.Pipe()
		f.watches[write] = resource
		context.AfterFunc(r.Context(), func() { write.CloseWithError(r.Context().Err()) })
		return answer(http.StatusOK, read)
	}
	items := f.lists[resource]
	if exact, ok := f.exact[resource]; ok && query.Get("resourceVersion") == "" {
		items = exact
	}
	f.listed[resource]++
	if items == nil {
		items = []any{}
	}
	kind, version := "", ""
	for _, k := range AllKinds() {
		if r, _ := client.ResourceOf(k); r.Name == resource {
			kind, version = k+"List", r.GV.String()
		}
	}
	return answer(http.StatusOK, body(map[string]any{
		"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": "1"}, "items": items,
	}))
}

// asked is how often a resource was asked for.
func (f *fakeServer) asked(resource string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.questions[resource]
}

func body(v any) io.ReadCloser {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return io.NopCloser(bytes.NewReader(data))
}

// set changes what is listed, and tells no watch.
func (f *fakeServer) set(resource string, items ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists[resource] = items
}

// send tells all watches of a resource an event.
func (f *fakeServer) send(resource, event string, object any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line, err := json.Marshal(map[string]any{"type": event, "object": object})
	if err != nil {
		panic(err)
	}
	for w, r := range f.watches {
		if r == resource {
			_, _ = w.Write(append(line, '\n'))
		}
	}
}

// gone ends all watches since the history is too short, so that the client lists again.
func (f *fakeServer) gone(resource string) {
	f.send(resource, "ERROR", metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: http.StatusGone, Message: "too old resource version"})
}

// serve lets the server know all resources but one.
func (f *fakeServer) serve(allBut string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unserved = allBut
}

// leave lets the server be away, and come back.
func (f *fakeServer) leave(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
	for w := range f.watches {
		w.CloseWithError(io.ErrUnexpectedEOF)
		delete(f.watches, w)
	}
}

// A watching API in a synctest bubble.
type watching struct {
	*API
	mu   sync.Mutex
	all  []*model.Snapshot
	stop func()
}

func watchFake(t *testing.T, f *fakeServer, options APIOptions) *watching {
	t.Helper()
	return watchTransport(t, f, options)
}

func watchTransport(t *testing.T, transport http.RoundTripper, options APIOptions) *watching {
	t.Helper()
	config := &client.RESTConfig{Host: "https://fake", WrapTransport: func(http.RoundTripper) http.RoundTripper { return transport }}
	api, err := NewAPI(config, options, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{API: api}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = api.Run(ctx, func(s *model.Snapshot) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all = append(w.all, s)
		})
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	return w
}

// last waits and returns the newest Snapshot, nil if there is none.
func (w *watching) last(after time.Duration) *model.Snapshot {
	time.Sleep(after)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return nil
	}
	return w.all[len(w.all)-1]
}

func (w *watching) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

func fakeService(name string) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: "1"},
	}
}

func services(n int) []any {
	var out []any
	for i := range n {
		out = append(out, fakeService(fmt.Sprint("s", i)))
	}
	return out
}

func reasons(s *model.Snapshot) string {
	var out []string
	for _, p := range s.Problems {
		out = append(out, p.Reason)
	}
	return strings.Join(out, " ")
}

// TestAway checks that all stays while the API server is away, that a Snapshot says so, and one that it is back.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		f.set("services", services(10)...)
		w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}})
		defer w.stop()
		if s := w.last(time.Second); s == nil || s.Services.Len() != 10 || len(s.Problems) != 0 || w.FromCache() {
			t.Fatalf("first Snapshot %+v", s)
		}
		f.leave(true)
		s := w.last(10 * time.Minute)
		if s.Services.Len() != 10 || reasons(s) != "APIServerAway" || !strings.Contains(s.Problems[0].Message, "connection refused") {
			t.Errorf("%d Services, problems %v, while it is away", s.Services.Len(), s.Problems)
		}
		if w.count() != 2 {
			t.Errorf("%d Snapshots, want one and one that says that it is away", w.count())
		}
		if age := w.Age(); age < 9*time.Minute || !w.FromCache() {
			t.Errorf("age %s, from cache %v", age, w.FromCache())
		}
		f.set("services", append(services(10), fakeService("fresh"))...)
		f.leave(false)
		w.last(10 * time.Second)
		f.gone("services") // the watch of a server that was away goes on where it was; this one cannot
		if s := w.last(10 * time.Second); s.Services.Len() != 11 || len(s.Problems) != 0 || w.Age() != 0 {
			t.Errorf("%d Services, problems %v, age %s, when it is back", s.Services.Len(), s.Problems, w.Age())
		}
	})
}

// TestMassDelete checks that a list that lacks most of what was there is doubted, that a second reading decides, and
// that fewer deletions, and those that a watch tells, are believed at once.
func TestMassDelete(t *testing.T) {
	for _, tt := range []struct {
		name          string
		listed, exact int // of 10
		soon, late    int
	}{
		{"an old list", 2, 10, 10, 10},
		{"an old list, and some were deleted", 2, 8, 10, 8},
		{"it is true", 0, 0, 10, 0},
		{"half", 5, 5, 5, 5},
		{"few", 9, 9, 9, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeServer()
				f.set("services", services(10)...)
				w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}})
				defer w.stop()
				w.last(time.Second)
				f.set("services", services(tt.listed)...)
				f.mu.Lock()
				f.exact["services"] = services(tt.listed)
				f.mu.Unlock()
				f.gone("services")
				s := w.last(5 * time.Second)
				if s.Services.Len() != tt.soon || (reasons(s) == "MassDeleteHeld") != (tt.soon > tt.listed) {
					t.Errorf("soon %d Services, problems %v, want %d Services", s.Services.Len(), s.Problems, tt.soon)
				}
				f.mu.Lock()
				f.exact["services"] = services(tt.exact)
				f.mu.Unlock()
				if s := w.last(time.Minute); s.Services.Len() != tt.late || len(s.Problems) != 0 {
					t.Errorf("late %d Services, problems %v, want %d Services", s.Services.Len(), s.Problems, tt.late)
				}
			})
		})
	}
	t.Run("told by the watch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(10)...)
			w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}})
			defer w.stop()
			w.last(time.Second)
			for _, s := range services(9) {
				f.send("services", "DELETED", s)
			}
			if s := w.last(100 * time.Millisecond); s.Services.Len() != 1 {
				t.Errorf("%d Services, want 1", s.Services.Len())
			}
		})
	})
}

// TestMassDeleteAfterCache checks that the first list after a start from the cache is doubted too.
func TestMassDeleteAfterCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		f.set("services", services(10)...)
		options := APIOptions{Kinds: []string{"Service"}, CacheDir: t.TempDir()}
		w := watchFake(t, f, options)
		w.last(10 * time.Second)
		w.stop()
		f.leave(true)
		w = watchFake(t, f, options)
		defer w.stop()
		if s := w.last(4 * time.Second); s != nil {
			t.Errorf("%d Services before the API server had its time to answer", s.Services.Len())
		}
		if s := w.last(6 * time.Second); s == nil || s.Services.Len() != 10 || reasons(s) != "SnapshotFromCache" || !w.FromCache() {
			t.Fatalf("no Snapshot from the cache: %+v", s)
		}
		f.set("services", services(1)...)
		f.leave(false)
		if s := w.last(6 * time.Second); s.Services.Len() != 10 || reasons(s) != "MassDeleteHeld" || w.FromCache() {
			t.Errorf("%d Services, problems %v after the first list", s.Services.Len(), s.Problems)
		}
		if s := w.last(time.Minute); s.Services.Len() != 1 || len(s.Problems) != 0 {
			t.Errorf("%d Services, problems %v after the second reading", s.Services.Len(), s.Problems)
		}
	})
}

// TestCacheOfTheFuture starts from a cache that was written before the clock was set back.
func TestCacheOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		f.set("services", services(3)...)
		options := APIOptions{Kinds: []string{"Service"}, CacheDir: t.TempDir()}
		w := watchFake(t, f, options)
		w.last(10 * time.Second)
		w.stop()
		f.leave(true)
		ahead := time.Now().Add(24 * time.Hour)
		if err := os.Chtimes(filepath.Join(options.CacheDir, "snapshot.jsonl"), ahead, ahead); err != nil {
			t.Fatal(err)
		}
		w = watchFake(t, f, options)
		defer w.stop()
		if s := w.last(10 * time.Second); s == nil || s.Services.Len() != 3 {
			t.Fatalf("no Snapshot from the cache: %+v", s)
		}
		if age := w.Age(); age < 0 || age > 10*time.Second {
			t.Errorf("the age is %s", age)
		}
	})
}

// TestCacheNotWritten has no disk for the cache for a while, and wants to hear of it and to find the last state there after.
func TestCacheNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		f.set("services", services(1)...)
		dir := filepath.Join(t.TempDir(), "cache")
		w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}, CacheDir: dir})
		defer w.stop()
		w.last(time.Minute)
		if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, s := range services(3)[1:] {
			f.send("services", "ADDED", s)
		}
		if s := w.last(time.Minute); s == nil || s.Services.Len() != 3 || reasons(s) != ReasonCacheNotWritten {
			t.Fatalf("no Problem of the cache: %+v", s)
		}
		if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		if s := w.last(time.Minute); s == nil || s.Services.Len() != 3 || len(s.Problems) != 0 {
			t.Errorf("the Problem stays: %+v", s)
		}
	})
}

// TestCacheTriedAgain wants a state that could not be written to be written once it can be: without it the file would say
// the state of before, and be dated as if it was true still.
func TestCacheTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := watchFake(t, newFakeServer(), APIOptions{Kinds: []string{"Service"}, CacheDir: dir})
		w.stop()
		saved := &shelf{}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		saved.put(nil)
		go w.save(ctx, saved)
		time.Sleep(time.Minute)
		if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := os.Stat(filepath.Join(dir, "snapshot.jsonl")); err != nil {
			t.Error(err)
		}
	})
}

// TestStartAway checks that without cache and API server nothing is handed out: an empty Snapshot would be believed.
func TestStartAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		f.leave(true)
		w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}, CacheDir: t.TempDir()})
		defer w.stop()
		if s := w.last(10 * time.Minute); s != nil {
			t.Errorf("a Snapshot out of nothing: %+v", s)
		}
		f.set("services", services(3)...)
		f.leave(false)
		if s := w.last(10 * time.Second); s == nil || s.Services.Len() != 3 || len(s.Problems) != 0 {
			t.Errorf("Snapshot %+v", s)
		}
	})
}

// TestMalformed checks that an object of Hythe's own kinds that does not fit its type costs itself alone, in a list
// and in a watch.
func TestMalformed(t *testing.T) {
	pool := func(name string, spec any) map[string]any {
		return map[string]any{
			"apiVersion": v1alpha1.APIVersion, "kind": "AddressPool",
			"metadata": map[string]any{"name": name, "resourceVersion": "1"}, "spec": spec,
		}
	}
	good := map[string]any{"addresses": []any{"203.0.113.10"}}
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		noSpec := pool("no-spec", nil)
		delete(noSpec, "spec")
		f.set("addresspools",
			pool("good", good), noSpec,
			pool("more", map[string]any{"addresses": []any{"203.0.113.11"}, "fieldOfTheFuture": map[string]any{"a": 1}}),
			pool("overflow", map[string]any{"addresses": []any{"203.0.113.12"}, "priority": json.Number("99999999999")}),
			pool("wrong-type", map[string]any{"addresses": "203.0.113.13"}),
		)
		w := watchFake(t, f, APIOptions{Kinds: []string{"AddressPool"}})
		defer w.stop()
		s := w.last(time.Second)
		if s == nil || s.Pools["good"] == nil || s.Pools["more"] == nil || s.Pools["no-spec"] == nil || len(s.Pools) != 3 {
			t.Fatalf("Snapshot %+v", s)
		}
		if reasons(s) != "Unreadable Unreadable" || s.Problems[0].Object != (model.ObjectRef{Kind: "AddressPool", Name: "overflow"}) {
			t.Errorf("problems %v", s.Problems)
		}
		// What was good stays as it was; what is good again counts.
		f.send("addresspools", "MODIFIED", pool("good", map[string]any{"addresses": 7}))
		f.send("addresspools", "MODIFIED", pool("overflow", good))
		f.send("addresspools", "ADDED", pool("next", good))
		s = w.last(time.Second)
		if len(s.Pools) != 5 || len(s.Pools["good"].Spec.Addresses) != 1 || len(s.Problems) != 2 {
			t.Errorf("%d pools, good %+v, problems %v", len(s.Pools), s.Pools["good"], s.Problems)
		}
		f.send("addresspools", "DELETED", pool("wrong-type", nil))
		f.send("addresspools", "MODIFIED", pool("good", good))
		if s = w.last(time.Second); len(s.Problems) != 0 {
			t.Errorf("problems %v", s.Problems)
		}
	})
}

// TestStorm checks that many changes make few Snapshots, and that each change is seen within the interval.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeServer()
		w := watchFake(t, f, APIOptions{Kinds: []string{"Service"}})
		defer w.stop()
		w.last(time.Second)
		const count, apart, interval = 1000, time.Millisecond, 30 * time.Millisecond
		n := w.count()
		for i := range count {
			f.send("services", "ADDED", fakeService(fmt.Sprint("s", i)))
			s := w.last(apart)
			if behind := i + 1 - s.Services.Len(); time.Duration(behind)*apart > interval+apart {
				t.Fatalf("after %d changes the last Snapshot is %d behind", i+1, behind)
			}
		}
		if s := w.last(interval); s.Services.Len() != count {
			t.Errorf("%d Services at the end", s.Services.Len())
		}
		if more := w.count() - n; more > int(count*apart/interval)+2+burst {
			t.Errorf("%d Snapshots of %d changes in %s", more, count, count*apart)
		}
	})
}
